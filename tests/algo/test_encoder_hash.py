import pytest
import torch

from hildaft.algo.training import require_encoders
from hildaft.types import HilDaftError


def state(text: str) -> dict[str, torch.Tensor]:
    return {"learner.encoder_hash": torch.tensor(list(text.encode()), dtype=torch.uint8)}


def test_a_checkpoint_of_other_encoders_is_refused_with_the_way_out():
    require_encoders(state("aa"), "aa")
    require_encoders({}, "aa")
    require_encoders(state(""), "aa")
    with pytest.raises(
        HilDaftError, match=r"encoders aa, the run's are now bb.*hildaft encode RUN"
    ):
        require_encoders(state("aa"), "bb")
