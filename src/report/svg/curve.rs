//! A curve of any number of samples, drawn with at most two points a column of pixels and without losing a spike.

use std::fmt::Write;

/// Where a curve goes through, in pixels from the left and from the top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// Takes points from left to right; keeps of each column of pixels the highest and the lowest, in their order.
#[derive(Debug, Default)]
pub(super) struct Curve {
    path: String,
    column: Option<Column>,
    /// Samples are missing before the next point.
    is_interrupted: bool,
    /// Points drawn since the line began.
    drawn: usize,
    /// Where the last point that was taken lies.
    last_x: f64,
}

#[derive(Debug)]
struct Column {
    number: u64,
    top: Point,
    bottom: Point,
}

impl Curve {
    /// Goes on to that point, or, after an interruption that can be seen, begins anew there.
    pub(super) fn add(&mut self, point: Point) {
        if std::mem::take(&mut self.is_interrupted) && point.x - self.last_x >= 1.0 {
            self.end_line();
        }
        self.last_x = point.x;
        let number = point.x as u64;
        match &mut self.column {
            Some(column) if column.number == number => {
                if point.y < column.top.y {
                    column.top = point;
                }
                if point.y > column.bottom.y {
                    column.bottom = point;
                }
            }
            _ => {
                self.draw_column();
                self.column = Some(Column { number, top: point, bottom: point });
            }
        }
    }

    /// Says that samples are missing here.
    pub(super) fn interrupt(&mut self) {
        self.is_interrupted = true;
    }

    /// The `d` of an SVG `path`.
    pub(super) fn finish(mut self) -> String {
        self.end_line();
        self.path
    }

    fn draw_column(&mut self) {
        let Some(Column { top, bottom, .. }) = self.column.take() else { return };
        let (first, second) = if top.x <= bottom.x { (top, bottom) } else { (bottom, top) };
        self.draw(first);
        if first != second {
            self.draw(second);
        }
    }

    fn draw(&mut self, point: Point) {
        let command = if self.drawn == 0 { 'M' } else { 'L' };
        self.drawn += 1;
        write!(self.path, "{command}{:.1} {:.1}", point.x, point.y).expect("a string takes all");
    }

    fn end_line(&mut self) {
        self.draw_column();
        if self.drawn == 1 {
            // A point alone is drawn as a dot.
            self.path.push_str("h0.1");
        }
        self.drawn = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_of_one_sample_survives_and_points_stay_few() {
        let mut curve = Curve::default();
        for n in 0..100_000 {
            let y = if n == 77_777 { 3.0 } else { 90.0 + f64::from(n % 7) };
            curve.add(Point { x: f64::from(n) / 1000.0, y });
        }
        let path = curve.finish();
        assert!(path.contains("L77.8 3.0"), "{path}");
        assert_eq!(path.matches(['M', 'L']).count(), 200);
        assert_eq!(path.matches('M').count(), 1);
    }

    #[test]
    fn a_gap_that_can_be_seen_interrupts_the_line() {
        let mut curve = Curve::default();
        let mut add = |points: &[(f64, f64)]| {
            points.iter().for_each(|(x, y)| curve.add(Point { x: *x, y: *y }));
            curve.interrupt();
        };
        add(&[(0.0, 5.0), (1.0, 6.0), (2.0, 5.0)]);
        add(&[(2.5, 5.0), (9.0, 4.0)]);
        add(&[(20.0, 5.0)]);
        add(&[(30.0, 5.0), (31.0, 7.0)]);
        assert_eq!(curve.finish(), "M0.0 5.0L1.0 6.0L2.0 5.0L9.0 4.0M20.0 5.0h0.1M30.0 5.0L31.0 7.0");
        assert_eq!(Curve::default().finish(), "");
    }
}
