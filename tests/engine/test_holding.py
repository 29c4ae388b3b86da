"""A loaded model is held, so that it is not deleted under an engine; one that is being deleted is not loaded."""

from __future__ import annotations

import pytest

from quantchat import holding
from quantchat.engine import protocol as p
from quantchat.errors import ModelError
from quantchat.holding import alone_with
from quantchat.services.removal import require_free

pytestmark = pytest.mark.engine


def test_a_model_is_held_from_its_load_until_another_is_loaded(rig, copy_of) -> None:
    dense, gptq = copy_of("dense"), copy_of("gptq")
    rig.load(dense)
    with pytest.raises(ModelError, match="loaded"):
        require_free(dense)
    with alone_with(gptq) as free:
        assert free
    rig.load(gptq)
    require_free(dense)
    with alone_with(gptq) as free:
        assert not free
    (dense / "model.safetensors").write_bytes(b"damaged")
    rig.load(dense)
    require_free(dense)
    require_free(gptq)


def test_a_model_is_free_after_its_unload_and_refused_while_it_is_deleted(
    rig, copy_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = copy_of("dense")
    monkeypatch.setattr(holding, "PATIENCE", 0.0)
    with alone_with(dense) as free:
        assert free
        refused = rig.load(dense)
        assert isinstance(refused, p.LoadFailed)
        assert refused.error.code == "in-removal"
    assert isinstance(rig.load(dense), p.Loaded)
    rig.worker.submit(p.Unload(request=rig.name()))
    rig.wait(p.Unloaded)
    require_free(dense)
