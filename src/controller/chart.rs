//! Charts: SVG that is drawn here, so that a page needs no program to show one. Colours are the style sheet's.

use maud::{Markup, html};

use super::views::Point;

/// Units of the drawing; it scales with the page.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 150.0;
/// Left for the numbers of the axis, below for the times.
const LEFT: f64 = 46.0;
const BOTTOM: f64 = 18.0;
const TOP: f64 = 8.0;

/// One line of a chart.
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Class of the style sheet: `ok`, `bad`, `slow`.
    pub(super) class: &'static str,
    pub(super) value: fn(&Point) -> Option<f64>,
}

pub(super) struct Chart<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) unit: &'static str,
    pub(super) lines: &'a [Line],
    /// Seconds since 1970.
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Chart<'_> {
    pub(super) fn draw(&self, points: &[Point]) -> Markup {
        let values = self.lines.iter().flat_map(|line| points.iter().filter_map(line.value));
        let top = ceiling(values.fold(0.0, f64::max));
        let last = |line: &Line| points.iter().rev().find_map(line.value);
        let said: Vec<String> = self
            .lines
            .iter()
            .map(|line| {
                format!("{} {}", line.name, last(line).map_or("–".to_owned(), |value| short(value) + self.unit))
            })
            .collect();
        html! {
            figure class="chart" id=(self.id) {
                figcaption {
                    span { (self.title) }
                    @for (line, said) in self.lines.iter().zip(&said) { span class={ "key " (line.class) } { (said) } }
                }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" preserveAspectRatio="none"
                    aria-label={ (self.title) ": " (said.join(", ")) } {
                    @for share in [0.0, 0.5, 1.0] {
                        line class="grid" x1=(LEFT) x2=(WIDTH) y1=(self.y(top * share, top)) y2=(self.y(top * share, top)) {}
                        text class="axis" x=(LEFT - 6.0) y=(self.y(top * share, top) + 3.5) text-anchor="end" { (short(top * share)) }
                    }
                    @for (share, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
                        text class="axis" x=(LEFT + (WIDTH - LEFT) * share) y=(HEIGHT - 4.0) text-anchor=(anchor) {
                            (clock(self.from + ((self.to - self.from) as f64 * share) as u64))
                        }
                    }
                    @for line in self.lines { path class={ "line " (line.class) } d=(self.path(line, points, top)) {} }
                }
            }
        }
    }

    fn path(&self, line: &Line, points: &[Point], top: f64) -> String {
        let mut path = String::new();
        let mut down = false;
        for point in points {
            let Some(value) = (line.value)(point) else {
                down = false;
                continue;
            };
            // What has no length is a dot: a step that stands alone is seen, too.
            let (step, dot) = if down { ("L", "") } else { ("M", "h0") };
            path.push_str(&format!("{step}{:.1} {:.1}{dot}", self.x(point.at), self.y(value, top)));
            down = true;
        }
        path
    }

    fn x(&self, at: u64) -> f64 {
        let span = self.to.saturating_sub(self.from).max(1) as f64;
        LEFT + (WIDTH - LEFT) * (at.saturating_sub(self.from) as f64 / span).clamp(0.0, 1.0)
    }

    fn y(&self, value: f64, top: f64) -> f64 {
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value / top).clamp(0.0, 1.0))
    }
}

/// The next of 1, 2, 5, 10, 20.. that is no less.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let decade = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * decade);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

/// A number as short as it says what it should.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        below if below < 1.0 => format!("{value:.2}"),
        below if below < 10.0 => format!("{value:.1}"),
        below if below < 10_000.0 => format!("{value:.0}"),
        below if below < 10_000_000.0 => format!("{:.1}k", value / 1e3),
        _ => format!("{:.1}M", value / 1e6),
    }
}

/// Hours and minutes, UTC.
pub(super) fn clock(at: u64) -> String {
    format!("{:02}:{:02}", at / 3600 % 24, at / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::meter::Rate;

    #[test]
    fn scales_are_round_and_no_less() {
        for (value, expect) in [(0.0, 1.0), (0.3, 0.5), (1.0, 1.0), (11.0, 20.0), (730.0, 1000.0)] {
            assert!((ceiling(value) - expect).abs() < 1e-9, "{value}");
        }
        assert_eq!([short(0.0), short(0.25), short(7.0), short(12_345.0)], ["0", "0.25", "7.0", "12.3k"]);
        assert_eq!(clock(3_661), "01:01");
    }

    #[test]
    fn gaps_break_the_line_and_text_is_escaped() {
        let point = |at, p99_ms| Point { at, rate: Rate { p99_ms, ..Rate::default() } };
        let points = [point(0, Some(1.0)), point(10, None), point(20, Some(2.0)), point(30, Some(1.0))];
        let lines = [Line { name: "p99", class: "slow", value: |point| point.rate.p99_ms }];
        let chart = Chart { id: "c", title: "<b>", unit: " ms", lines: &lines, from: 0, to: 30 };
        let drawn = chart.draw(&points).into_string();
        assert_eq!(drawn.matches(['M', 'L']).filter(|step| *step == "M").count(), 2, "{drawn}");
        assert!(drawn.contains("&lt;b&gt;: p99 1.0 ms") && !drawn.contains("<b>"), "{drawn}");
    }
}
