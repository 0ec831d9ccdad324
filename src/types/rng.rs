//! The only source of chance: a small generator, seeded by the caller.

/// A generator of uniformly distributed numbers (wyrand); not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// The generator of this seed: the same seed gives the same numbers.
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 { 0 } else { self.0.u32(..bound) }
    }

    /// Any 64-bit number.
    #[expect(
        clippy::should_implement_trait,
        reason = "an endless iterator would invite loops without a bound"
    )]
    pub fn next(&mut self) -> u64 {
        self.0.u64(..)
    }
}
