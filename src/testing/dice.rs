//! Chance that follows from a seed.

/// The `nth` random number of `seed`: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
/// number generators", 2014).
pub(super) fn roll(seed: u64, nth: u64) -> u64 {
    let state = seed.wrapping_add((nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether the `nth` event is one of `percent` of all.
pub(super) fn hits(percent: u8, seed: u64, nth: u64) -> bool {
    roll(seed, nth) % 100 < u64::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_about_right_and_follows_from_the_seed() {
        let count = |percent, seed| (0..10_000).filter(|&nth| hits(percent, seed, nth)).count();
        assert!((400..600).contains(&count(5, 1)), "{}", count(5, 1));
        assert_eq!((count(0, 1), count(100, 1)), (0, 10_000));
        assert_ne!(roll(1, 0), roll(2, 0));
    }
}
