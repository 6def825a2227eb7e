import pytest

from service.key_tokens import KeyToken, hash_secret, matches, new_token, parse_token


def test_a_new_key_is_found_by_its_id_and_holds_256_random_bits() -> None:
    token = new_token()

    assert parse_token(token.text) == token
    assert token.text.startswith("hyp_")
    assert len(token.secret) * 6 >= 256
    assert new_token() != token


@pytest.mark.parametrize(
    "text",
    ["", "hyp_", "a-token-for-tests", f"hyp_{'0' * 16}_{'A' * 42}", f"hyp_{'g' * 16}_{'A' * 43}"],
)
def test_what_has_another_form_is_no_key(text: str) -> None:
    assert parse_token(text) is None


def test_only_its_own_secret_matches_a_stored_hash() -> None:
    token = new_token()
    stored = hash_secret(token.secret)

    assert token.secret not in stored
    assert matches(token.secret, stored)
    assert not matches(new_token().secret, stored)


def test_one_secret_never_has_the_same_hash_twice() -> None:
    assert hash_secret("secret", cost=2) != hash_secret("secret", cost=2)


def test_a_hash_keeps_its_cost_so_that_another_can_be_chosen_later() -> None:
    assert matches("secret", hash_secret("secret", cost=2))
    assert matches("secret", hash_secret("secret", cost=4))


def test_a_key_that_is_printed_does_not_show_its_secret() -> None:
    token = new_token()

    assert token.secret not in f"{token} {token!r}"
    assert KeyToken(token.key_id, token.secret).key_id in repr(token)
