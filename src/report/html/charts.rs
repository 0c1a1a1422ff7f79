//! Charts as inline SVG, coloured by the page's style.

use std::fmt::Write;

use super::parts::escape;
use crate::domain::score::significant;
use crate::report::figure::Figure;

/// How a chart with a row for each name is laid out. A page holds both forms and shows one, by its width: a picture of the wide one that is
/// made smaller has letters that nobody can read.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Of the style.
    class: &'static str,
    /// In its own units, which are pixels where the page has this width.
    width: f64,
    /// Height of a row.
    row: f64,
    /// Whether names stand above what they name, not beside it.
    stacked: bool,
    /// Ticks of an axis, about.
    ticks: f64,
    /// Names of a legend in a row.
    legend: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout { class: "wide", width: 720.0, row: 26.0, stacked: false, ticks: 5.0, legend: 2 },
    Layout { class: "narrow", width: 350.0, row: 44.0, stacked: true, ticks: 3.0, legend: 1 },
];

impl Layout {
    /// Where what is named begins, beside names of up to `longest` characters.
    fn left(self, longest: usize) -> f64 {
        if self.stacked { 0.0 } else { longest.min(LONGEST_NAME) as f64 * 7.2 + 16.0 }
    }

    /// Where the text of the row `index` stands.
    fn text(self, index: usize) -> f64 {
        index as f64 * self.row + 17.5
    }

    /// Middle of what the row `index` shows.
    fn middle(self, index: usize) -> f64 {
        index as f64 * self.row + if self.stacked { 32.0 } else { self.row / 2.0 }
    }

    fn open(self, height: f64, label: &str) -> String {
        let Self { class, width, .. } = self;
        format!("<svg class={class} viewBox=\"0 0 {width} {height:.0}\" role=img aria-label=\"{label}\">")
    }
}

/// Most characters of a name in a chart.
const LONGEST_NAME: usize = 34;
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
    LAYOUTS.map(|layout| dots_in(layout, dots, figure)).concat()
}

fn dots_in(layout: Layout, dots: &[Dot], figure: Figure) -> String {
    let Layout { width, row, ticks, .. } = layout;
    let left = layout.left(dots.iter().map(|dot| dot.name.chars().count()).max().unwrap_or(0));
    let height = dots.len() as f64 * row + 26.0;
    let ends = dots.iter().flat_map(|dot| dot.range);
    // Figures stand at the right, beside the dots where names stand beside them, too.
    let scale = Scale::around(ends, left + 6.0, if layout.stacked { width - 6.0 } else { width - 74.0 });
    let mut svg = layout.open(height, &format!("{} of every candidate", figure.name()));
    for tick in scale.ticks(ticks) {
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
        let (text, y) = (layout.text(index), layout.middle(index));
        let [low, x, high] = [dot.range[0], dot.value, dot.range[1]].map(|value| scale.at(value));
        let _ = write!(
            svg,
            "<g class={0}><text class={0} x=0 y={text:.1}>{1}</text><line class=whisker x1={low:.1} x2={high:.1} y1={y:.1} y2={y:.1} />\
             <circle cx={x:.1} cy={y:.1} r=5 /><text class={0} x={width} y={text:.1} text-anchor=end>{2}</text></g>",
            dot.class,
            escape(&shortened(&dot.name)),
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
    LAYOUTS.map(|layout| shares_in(layout, bars, members)).concat()
}

fn shares_in(layout: Layout, bars: &[(String, Vec<usize>)], members: &[String]) -> String {
    let Layout { width: whole, row, legend: columns, .. } = layout;
    let left = layout.left(bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0));
    let legend = members.len().div_ceil(columns) as f64 * 20.0 + 10.0;
    let height = bars.len() as f64 * row + legend;
    let mut svg = layout.open(height, "kept units by member");
    for (index, (name, parts)) in bars.iter().enumerate() {
        let y = layout.middle(index);
        let _ = write!(svg, "<text x=0 y={:.1}>{}</text>", layout.text(index), escape(&shortened(name)));
        let total = parts.iter().sum::<usize>().max(1) as f64;
        let mut x = left;
        for (member, part) in parts.iter().enumerate().filter(|(_, part)| **part > 0) {
            let width = (whole - left) * *part as f64 / total;
            let _ = write!(
                svg,
                "<rect x={x:.1} y={:.1} width={width:.1} height=18 fill=\"{}\"><title>{part} units of member {member}</title></rect>",
                y - 9.0,
                colour(member)
            );
            if width > 30.0 {
                let _ = write!(
                    svg,
                    "<text x={:.1} y={:.1} text-anchor=middle style=\"fill:#fff;font-size:11.5px\">{part}</text>",
                    x + width / 2.0,
                    y + 4.0
                );
            }
            x += width;
        }
    }
    for (member, name) in members.iter().enumerate() {
        let x = (member % columns) as f64 * whole / columns as f64;
        let y = bars.len() as f64 * row + (member / columns) as f64 * 20.0 + 12.0;
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
    if count <= LONGEST_NAME {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(count + 1 - LONGEST_NAME)).collect()
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
