//! Charts as inline SVG, coloured by the page's style.

use std::fmt::Write;

use super::parts::escape;
use crate::domain::score::significant;
use crate::report::figure::Figure;

/// Width of a chart, in its own units.
const WIDTH: f64 = 720.0;
/// Height of a row of names.
const ROW: f64 = 26.0;
/// Colours that stand for members, in turn: steps around the wheel far from each other.
const HUES: [u32; 8] = [217, 28, 152, 335, 268, 48, 190, 0];

/// A named figure with its uncertainty.
#[derive(Debug)]
pub(in crate::report) struct Dot {
    pub(in crate::report) name: String,
    pub(in crate::report) value: f64,
    /// How far it may be off, below and above.
    pub(in crate::report) range: [f64; 2],
    pub(in crate::report) class: &'static str,
}

/// A curve.
#[derive(Debug)]
pub(in crate::report) struct Series {
    pub(in crate::report) name: String,
    pub(in crate::report) class: &'static str,
    pub(in crate::report) points: Vec<(f64, f64)>,
}

/// A stretch of numbers on a stretch of pixels.
#[derive(Debug, Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Around the finite ones of `values`, with some room, between `from` and `to`.
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let room = ((high - low) * 0.06).max(high.abs() * 1e-3).max(1e-6);
        Self { low: low - room, high: high + room, from, to }
    }

    fn at(self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round numbers within, about `count` of them.
    fn ticks(self, count: f64) -> Vec<f64> {
        let rough = (self.high - self.low) / count;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil();
        let last = (self.high / step).floor();
        (0..=(last - first).max(0.0) as usize).map(|index| (first + index as f64) * step).collect()
    }
}

/// Figures as dots with whiskers, a row each.
pub(in crate::report) fn dots(dots: &[Dot], figure: Figure) -> String {
    let longest = dots.iter().map(|dot| dot.name.chars().count()).max().unwrap_or(0).min(34);
    let left = longest as f64 * 7.2 + 16.0;
    let height = dots.len() as f64 * ROW + 26.0;
    let ends = dots.iter().flat_map(|dot| dot.range);
    let scale = Scale::around(ends, left, WIDTH - 74.0);
    let mut svg = open(height, &format!("{} of every candidate", figure.name()));
    for tick in scale.ticks(5.0) {
        let x = scale.at(tick);
        let _ = write!(
            svg,
            "<line class=grid x1={x:.1} x2={x:.1} y1=0 y2={:.1} /><text class=tick x={x:.1} y={:.1} text-anchor=middle>{}</text>",
            height - 22.0,
            height - 6.0,
            if figure.is_share() { percent(tick) } else { significant(tick) }
        );
    }
    for (index, dot) in dots.iter().enumerate() {
        let y = (index as f64 + 0.5) * ROW;
        let [low, x, high] = [dot.range[0], dot.value, dot.range[1]].map(|value| scale.at(value));
        let _ = write!(
            svg,
            "<g class={0}><text class={0} x=0 y={1:.1}>{2}</text><line class=whisker x1={low:.1} x2={high:.1} y1={y:.1} y2={y:.1} />\
             <circle cx={x:.1} cy={y:.1} r=5 /><text class={0} x={3:.1} y={1:.1} text-anchor=end>{4}</text></g>",
            dot.class,
            y + 4.5,
            escape(&shortened(&dot.name)),
            WIDTH,
            figure.shown(dot.value)
        );
    }
    svg + "</svg>"
}

/// Classes of curves, distinguished by colour.
pub(in crate::report) const CLASSES: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];

/// Curves over epochs, with their names below; shares in percent or plain numbers.
pub(in crate::report) fn lines(series: &[Series], shares: bool) -> String {
    let (width, height) = (360.0, 230.0);
    let series: Vec<&Series> = series.iter().filter(|series| !series.points.is_empty()).collect();
    let names: f64 = series.iter().map(|series| series.name.chars().count() as f64 * 6.4 + 32.0).sum();
    let whole = height + 16.0 * (names / (width - 90.0)).floor();
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    let x = Scale::around(all().map(|point| point.0), 46.0, width - 6.0);
    let y = Scale::around(all().map(|point| point.1), height - 44.0, 6.0);
    let mut svg = format!("<svg viewBox=\"0 0 {width} {whole:.0}\" role=img aria-label=curves>");
    for tick in y.ticks(4.0) {
        let at = y.at(tick);
        let label = if shares {
            percent(tick)
        } else {
            format!("{tick:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let _ = write!(
            svg,
            "<line class=grid x1=46 x2={width} y1={at:.1} y2={at:.1} /><text class=tick x=40 y={:.1} text-anchor=end>{label}</text>",
            at + 4.0
        );
    }
    for tick in x.ticks(6.0).into_iter().filter(|tick| tick.fract() == 0.0) {
        let _ = write!(
            svg,
            "<text class=tick x={:.1} y={:.1} text-anchor=middle>{tick:.0}</text>",
            x.at(tick),
            height - 28.0
        );
    }
    let (mut place, mut below) = (46.0, height - 14.0);
    for series in series {
        let room = series.name.chars().count() as f64 * 6.4 + 24.0;
        if place > 46.0 && place + room > width {
            (place, below) = (46.0, below + 16.0);
        }
        let points: Vec<String> =
            series.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x.at(*a), y.at(*b))).collect();
        let _ = write!(svg, "<g class={}><polyline class=curve points=\"{}\" />", series.class, points.join(" "));
        let _ = write!(
            svg,
            "<rect class=swatch x={place:.1} y={below:.1} width=10 height=10 rx=2 /><text class=tick x={:.1} y={:.1}>{}</text></g>",
            place + 14.0,
            below + 9.0,
            escape(&series.name)
        );
        place += series.name.chars().count() as f64 * 6.4 + 32.0;
    }
    svg + "</svg>"
}

/// Whole numbers as parts of a bar each, in the members' colours.
pub(in crate::report) fn shares(bars: &[(String, Vec<usize>)], members: &[String]) -> String {
    let longest = bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(34);
    let left = longest as f64 * 7.2 + 16.0;
    let legend = members.len().div_ceil(2) as f64 * 20.0 + 10.0;
    let height = bars.len() as f64 * ROW + legend;
    let mut svg = open(height, "kept units by member");
    for (index, (name, parts)) in bars.iter().enumerate() {
        let y = index as f64 * ROW;
        let _ = write!(svg, "<text x=0 y={:.1}>{}</text>", y + 17.0, escape(&shortened(name)));
        let total = parts.iter().sum::<usize>().max(1) as f64;
        let mut x = left;
        for (member, part) in parts.iter().enumerate().filter(|(_, part)| **part > 0) {
            let width = (WIDTH - left) * *part as f64 / total;
            let _ = write!(
                svg,
                "<rect x={x:.1} y={:.1} width={width:.1} height=18 fill=\"{}\"><title>{part} units of member {member}</title></rect>",
                y + 3.0,
                colour(member)
            );
            if width > 30.0 {
                let _ = write!(
                    svg,
                    "<text x={:.1} y={:.1} text-anchor=middle style=\"fill:#fff;font-size:11.5px\">{part}</text>",
                    x + width / 2.0,
                    y + 16.5
                );
            }
            x += width;
        }
    }
    for (member, name) in members.iter().enumerate() {
        let x = (member % 2) as f64 * WIDTH / 2.0;
        let y = bars.len() as f64 * ROW + (member / 2) as f64 * 20.0 + 12.0;
        let _ = write!(
            svg,
            "<rect x={x:.1} y={y:.1} width=10 height=10 rx=2 fill=\"{}\" /><text class=tick x={:.1} y={:.1}>member {member}: {}</text>",
            colour(member),
            x + 15.0,
            y + 9.5,
            escape(&shortened(name))
        );
    }
    svg + "</svg>"
}

fn open(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=img aria-label=\"{label}\">")
}

/// A member's colour; further rounds are lighter.
fn colour(member: usize) -> String {
    let lightness = 45 + (member / HUES.len() * 10).min(35);
    format!("hsl({}, 62%, {lightness}%)", HUES[member % HUES.len()])
}

fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The end of a long name, by which names differ more than by their beginning.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= 34 { name.to_owned() } else { std::iter::once('…').chain(name.chars().skip(count - 33)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let scale = Scale::around([0.4431, 0.5561].into_iter(), 0.0, 100.0);
        let ticks = scale.ticks(5.0);
        assert!((3..=8).contains(&ticks.len()), "{ticks:?}");
        assert!(ticks.iter().all(|tick| (tick * 100.0 - (tick * 100.0).round()).abs() < 1e-9), "{ticks:?}");
        let one = Scale::around(std::iter::once(0.0), 0.0, 1.0);
        assert!(one.at(0.0).is_finite() && one.ticks(5.0).len() < 20);
        assert!(Scale::around([f64::NAN].into_iter(), 0.0, 1.0).ticks(4.0).len() < 20);
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(shortened("m0.safetensors"), "m0.safetensors");
        assert_eq!(shortened(&format!("{}/m0.safetensors", "a".repeat(50))).chars().count(), 34);
    }
}
