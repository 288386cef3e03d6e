//! How long a packet may be: pure, and told what came back of each length that was tried.

/// The shortest that every way lets through in practice.
const PATH_MIN: u16 = 576;
/// IPv6's least: where something shorter than usual is right, most often this is.
const LIKELY: u16 = 1280;
/// As close as the length is looked for, in bytes.
const GRAIN: u16 = 4;
/// Attempts of which too little came back to tell anything.
const UNCLEAR_MAX: u32 = 3;
/// Short ones that must have come back before a missing long one says something.
const SHORT_MIN: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    longest: u16,
    /// The longest that came back, and the shortest that did not.
    good: Option<u16>,
    bad: Option<u16>,
    /// The longest is tried twice before it counts as lost.
    doubted: bool,
    unclear: u32,
    given_up: bool,
}

impl Search {
    /// Of an address that is not `there`, nothing can be found.
    pub fn new(longest: u16, there: bool) -> Self {
        Self { longest, good: None, bad: None, doubted: false, unclear: 0, given_up: !there }
    }

    /// The length to try next; none at the end.
    pub fn next(&self) -> Option<u16> {
        if self.given_up {
            return None;
        }
        match (self.good, self.bad) {
            (None, None) => Some(self.longest),
            (Some(_), None) => None,
            (None, Some(bad)) => [LIKELY, PATH_MIN].into_iter().find(|length| *length < bad),
            (Some(good), Some(bad)) => (bad - good > GRAIN).then(|| good + (bad - good) / 2),
        }
    }

    /// How many came back, of the length and of short ones that were sent along.
    pub fn learn(&mut self, length: u16, long: u32, short: u32) {
        if long > 0 {
            self.good = self.good.max(Some(length));
        } else if short < SHORT_MIN {
            self.unclear += 1;
            self.given_up |= self.unclear > UNCLEAR_MAX;
        } else if length == self.longest && !self.doubted {
            self.doubted = true;
        } else {
            self.bad = Some(length);
        }
    }

    pub fn found(&self) -> Option<u16> {
        self.good.filter(|_| !self.given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found of a way that lets `limit` bytes pass.
    fn found(longest: u16, limit: u16) -> (Option<u16>, u32) {
        let mut search = Search::new(longest, true);
        let mut steps = 0;
        while let Some(length) = search.next() {
            search.learn(length, if length <= limit { 5 } else { 0 }, 5);
            steps += 1;
            assert!(steps < 20);
        }
        (search.found(), steps)
    }

    #[test]
    fn the_longest_that_passes_is_found_within_a_few_steps_and_never_more_than_passes() {
        for longest in [1280, 1420, 8920, 65455] {
            for limit in [576, 700, 1279, 1280, 1281, 1340, 1380, 1419, 1420, 9000] {
                let (found, steps) = found(longest, limit);
                let found = found.expect("something passes");
                let right = limit.min(longest);
                assert!(found <= right && right - found <= GRAIN, "{longest} {limit}: {found}");
                assert!(steps <= 18, "{longest} {limit}: {steps} steps");
            }
        }
        assert_eq!(found(1420, 1420), (Some(1420), 1));
        assert_eq!(found(1420, 500).0, None);
    }

    #[test]
    fn loss_and_silence_are_not_taken_for_a_short_way() {
        let mut search = Search::new(1420, true);
        for _ in 0..UNCLEAR_MAX + 1 {
            assert_eq!(search.next(), Some(1420));
            search.learn(1420, 0, SHORT_MIN - 1);
        }
        assert_eq!((search.next(), search.found()), (None, None));
        let mut search = Search::new(1420, true);
        search.learn(1420, 0, 5);
        search.learn(1420, 1, 5);
        assert_eq!((search.next(), search.found()), (None, Some(1420)), "the second try is believed");
        assert_eq!(Search::new(1420, false).next(), None);
    }
}
