"""What went wrong with runs, in words."""

from bluesky_filestore.delivery.problems import Problems


def test_the_worst_is_told():
    """That files were missing is no reason any more when documents are, whichever was known first."""
    problems = Problems()
    problems.add_loss("a", "files were missing")
    problems.add("a", "the table could not be made", lost=False)
    assert problems.loss("a") == "files were missing"
    problems.add("a", "events could not be written")
    problems.add_loss("a", "other files were missing")
    assert problems.loss("a") == "events could not be written"
    problems.forget("a")
    assert problems.loss("a") == ""
