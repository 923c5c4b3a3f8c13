"""The table of specs against the packages that gave the names."""

import pytest
from area_detector_handlers.handlers import AreaDetectorHDF5Handler, AreaDetectorTiffHandler
from tiled.mimetypes import DEFAULT_ADAPTERS_BY_MIMETYPE

from bluesky_filestore.errors import UnknownSpecError
from bluesky_filestore.model.specs import SPECS, spec_named


def test_names_are_those_of_the_public_handlers():
    """What ophyd writes into Resource documents is what the handlers register for."""
    assert "AD_HDF5" in AreaDetectorHDF5Handler.specs
    assert "AD_TIFF" in AreaDetectorTiffHandler.specs
    assert {"AD_HDF5", "AD_TIFF", "AD_HDF5_SINGLE"} <= set(SPECS)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_mimetype_is_served_by_stock_tiled(name):
    """A stock server has an adapter for every media type of the table."""
    assert SPECS[name].mimetype in DEFAULT_ADAPTERS_BY_MIMETYPE


def test_unknown_spec():
    """The error lists the specs that are known, and is a LookupError."""
    with pytest.raises(UnknownSpecError, match="'AD_GIF' is not known; expected one of AD_HDF5") as caught:
        spec_named("AD_GIF")
    assert isinstance(caught.value, LookupError)
