//! An axis of a picture: where a value lies on it, and which round values are named.

/// From 0 at one end to `most` at the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    /// The value at its end; above zero.
    pub(super) most: f64,
    /// How long it is, in pixels.
    pub(super) length: f64,
}

impl Axis {
    /// Pixels from its beginning; values beyond its ends lie at them.
    pub(super) fn place(&self, value: f64) -> f64 {
        (value / self.most).clamp(0.0, 1.0) * self.length
    }

    /// Round values 1, 2 or 5 · 10ⁿ apart, about `wanted` of them, with their names.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        let (factor, exponent) = step(self.most / wanted as f64);
        let decimals = usize::try_from(-exponent).unwrap_or(0);
        let value = |count: u32| {
            // From a whole number, so that no rounding error grows.
            let whole = f64::from(count * factor);
            if exponent < 0 { whole / 10_f64.powi(-exponent) } else { whole * 10_f64.powi(exponent) }
        };
        (0..)
            .map(value)
            .take_while(|value| *value <= self.most * (1.0 + 1e-9))
            .map(|value| (value, format!("{value:.decimals$}")))
            .collect()
    }

    /// The axis that ends at the first round value at or above `most`.
    pub(super) fn rounded_up(most: f64, wanted: usize, length: f64) -> Axis {
        let (factor, exponent) = step(most / wanted as f64);
        let step = f64::from(factor) * 10_f64.powi(exponent);
        Axis { most: (most / step * (1.0 - 1e-9)).ceil() * step, length }
    }
}

/// The least of 1, 2, 5 · 10ⁿ that is no less, as that factor and n.
fn step(at_least: f64) -> (u32, i32) {
    let exponent = at_least.log10().floor() as i32;
    let power = 10_f64.powi(exponent) * (1.0 - 1e-9);
    match at_least / 10_f64.powi(exponent) {
        _ if at_least * (1.0 - 2e-9) <= power => (1, exponent),
        ratio if ratio <= 2.0 + 1e-9 => (2, exponent),
        ratio if ratio <= 5.0 + 1e-9 => (5, exponent),
        _ => (1, exponent + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(most: f64) -> Vec<String> {
        Axis { most, length: 100.0 }.ticks(5).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        assert_eq!(names(10.0), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(names(0.3), ["0.0", "0.1", "0.2", "0.3"]);
        assert_eq!(names(134.2), ["0", "50", "100"]);
        assert_eq!(names(0.000_7), ["0.0000", "0.0002", "0.0004", "0.0006"]);
        assert_eq!(names(1e6).last().unwrap(), "1000000");
        for exponent in -9..14 {
            for mantissa in 1..100 {
                let most = f64::from(mantissa) * 10_f64.powi(exponent);
                let ticks = names(most);
                assert!((3..=7).contains(&ticks.len()), "{most}: {ticks:?}");
            }
        }
    }

    #[test]
    fn an_axis_is_made_to_end_at_a_round_value() {
        let end = |most| Axis::rounded_up(most, 5, 1.0).most;
        assert_eq!((end(134.2), end(100.0), end(0.000_061)), (150.0, 100.0, 0.000_08));
        let axis = Axis { most: 50.0, length: 200.0 };
        assert_eq!((axis.place(25.0), axis.place(-1.0), axis.place(60.0)), (100.0, 0.0, 200.0));
    }
}
