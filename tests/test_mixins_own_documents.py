"""Documents that a subclass queues besides ours, when a new run begins within one stage."""

from bluesky_filestore import FileStoreBase, resource_factory


def test_own_documents_stay():
    """A new run gets the subclass's Datum, and its Resource once more, while ours move to a new Resource."""
    store = FileStoreBase(write_path_template="/data", root="/")
    store.filestore_spec, store._fn = "AD_HDF5", "/data/a.h5"
    store._generate_resource({})
    resource, make_datum = resource_factory("AD_HDF5_TS", "/", "data/a.h5", {}, "posix")
    store._asset_docs_cache.append(("resource", resource))
    list(store.collect_asset_docs())
    store.generate_datum("image", 0.0, {"point_number": 1})
    own = make_datum({"point_number": 1})
    store._asset_docs_cache.append(("datum", own))
    store._renew_resource({})
    documents = list(store.collect_asset_docs())
    assert ("datum", own) in documents
    assert ("resource", resource) in documents
    known = set()
    for name, doc in documents:
        known |= {doc["uid"]} if name == "resource" else set()
        assert name == "resource" or doc["resource"] in known
