import numpy as np

from sparc_bench.scenes.random_stream import RandomStream, fold, mix, words

STEP = 0x9E3779B97F4A7C15
WORD = 1 << 64


def test_words_are_splitmix64s_published_ones_for_seed_1234567():
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert words(1234567, 5).tolist() == expected
    assert [mix((1234567 + k * STEP) % WORD) for k in range(1, 6)] == expected


def test_a_stream_gives_the_words_of_its_key_one_by_one():
    stream = RandomStream("scenes1", "test", 7)
    assert [stream.word() for _ in range(9)] == words(fold("scenes1", "test", 7), 9).tolist()


def test_keys_differ_in_any_part_and_in_where_parts_end():
    keys = [
        fold("ab", "c"),
        fold("a", "bc"),
        fold("abc"),
        fold("ab", "c", 0),
        fold("ab", 99),
        fold("c", "ab"),
        fold(1),
        fold("1"),
    ]
    assert len(set(keys)) == len(keys)


def test_draws_stay_below_their_limit_and_are_even():
    stream = RandomStream(1)
    counts = np.bincount([stream.below(7) for _ in range(7000)], minlength=7)
    assert len(counts) == 7
    # 6 standard deviations of a count of 1000
    assert np.abs(counts - 1000).max() < 6 * np.sqrt(1000)
    several = np.array([stream.several(3, 5) for _ in range(6000)])
    joint = np.bincount(several[:, 0] * 5 + several[:, 1], minlength=15)
    assert np.abs(joint - 400).max() < 6 * np.sqrt(400)


def test_weights_and_chances():
    stream = RandomStream(2)
    drawn = [stream.weighted((("a", 3), ("b", 0), ("c", 1))) for _ in range(4000)]
    assert set(drawn) == {"a", "c"}
    assert abs(drawn.count("a") - 3000) < 180
    assert abs(sum(stream.chance(1, 4) for _ in range(4000)) - 1000) < 180


def test_shuffling_keeps_every_item_and_reaches_every_order():
    stream = RandomStream(3)
    orders = {tuple(stream.shuffled("abc")) for _ in range(200)}
    assert len(orders) == 6
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
