"""Peak memory of the trainer's loss; here, since a machine that reclaims pages meanwhile makes peaks look small."""

from tests.training.test_loss import peak_mib


def test_its_memory_is_a_fraction_of_the_plain_one() -> None:
    ours, plain = peak_mib("blocks", "float32"), peak_mib("plain", "float32")
    assert abs(ours[1] - plain[1]) < 1e-5 * plain[1]
    assert plain[0] > 2.5 * 512  # nearly three times the logits: losses, probabilities and their gradients
    assert ours[0] < plain[0] / 5, (ours, plain)
