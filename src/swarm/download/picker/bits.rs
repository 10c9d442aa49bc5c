//! A set of chunk numbers.

/// A set of chunk numbers in machine words.
#[derive(Debug)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn empty(len: u32) -> Self {
        Bits(vec![0; len.div_ceil(64) as usize])
    }

    pub(super) fn get(&self, i: u32) -> bool {
        self.0[(i / 64) as usize] >> (i % 64) & 1 == 1
    }

    /// True if that changed anything.
    pub(super) fn set(&mut self, i: u32, on: bool) -> bool {
        let word = &mut self.0[(i / 64) as usize];
        let old = *word;
        if on {
            *word |= 1 << (i % 64);
        } else {
            *word &= !(1 << (i % 64));
        }
        *word != old
    }

    /// All numbers in the set, beginning near `from` and going round.
    pub(super) fn iter_from(&self, from: u32) -> impl Iterator<Item = u32> + '_ {
        let from = (from / 64) as usize;
        (from..self.0.len()).chain(0..from.min(self.0.len())).flat_map(move |w| {
            let mut word = self.0[w];
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(w as u32 * 64 + bit)
            })
        })
    }
}
