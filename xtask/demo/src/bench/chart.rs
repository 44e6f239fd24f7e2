//! Bar charts as SVG: dark text on a white card, so that they can be read on light and on dark pages.

use std::fmt::Write;

const WIDTH: u32 = 760;
const MARGIN: u32 = 20;
/// Where the bars begin, after the names.
const START: u32 = 130;
/// The longest bar. Its label follows it.
const LONGEST: u32 = 460;
const TITLE_HEIGHT: u32 = 80;
const GROUP_HEIGHT: u32 = 30;
const BAR_HEIGHT: u32 = 20;

/// Colours that people who cannot tell red from green can tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = ["#767676", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7"];

/// Horizontal bars in groups. Each group has its own scale.
pub(super) struct Chart {
    pub(super) title: String,
    /// What the figures are, and where they were measured: two lines below the title, and for people who cannot see the
    /// chart.
    pub(super) description: [String; 2],
    pub(super) groups: Vec<Group>,
}

/// Bars that are compared with each other.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Bar>,
    /// A value that is marked with a dashed line.
    pub(super) mark: Option<f64>,
}

/// One figure.
pub(super) struct Bar {
    pub(super) name: String,
    /// The number of the colour.
    pub(super) series: usize,
    /// Whether the colour is pale.
    pub(super) is_pale: bool,
    pub(super) value: f64,
    pub(super) label: String,
}

impl Chart {
    pub(super) fn svg(&self) -> String {
        let mut body = String::new();
        let mut y = TITLE_HEIGHT;
        for group in &self.groups {
            group.draw(y, &mut body);
            y += group.height();
        }
        let height = y + MARGIN;
        let title = escaped(&self.title);
        let [first, second] = self.description.each_ref().map(|line| escaped(line));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             role=\"img\" aria-labelledby=\"title description\" font-family=\"system-ui, sans-serif\" font-size=\"13\" \
             fill=\"#1f2328\">\n\
             <title id=\"title\">{title}</title>\n\
             <desc id=\"description\">{first} {second}</desc>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>\n\
             <text x=\"{MARGIN}\" y=\"30\" font-size=\"16\" font-weight=\"600\">{title}</text>\n\
             <text x=\"{MARGIN}\" y=\"50\" font-size=\"12\" fill=\"#57606a\">{first}</text>\n\
             <text x=\"{MARGIN}\" y=\"67\" font-size=\"12\" fill=\"#57606a\">{second}</text>\n\
             {body}</svg>\n",
            WIDTH - 1,
            height - 1,
        )
    }
}

impl Group {
    fn height(&self) -> u32 {
        GROUP_HEIGHT + BAR_HEIGHT * u32::try_from(self.bars.len()).unwrap_or(0)
    }

    fn draw(&self, top: u32, svg: &mut String) {
        let bars = self.bars.iter().map(|bar| bar.value);
        let longest = bars.chain(self.mark).fold(0.0, f64::max);
        let length = |value: f64| if longest > 0.0 { value / longest * f64::from(LONGEST) } else { 0.0 };
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{}\" font-weight=\"600\">{}</text>",
            top + 22,
            escaped(&self.name)
        );
        let mut y = top + GROUP_HEIGHT;
        for bar in &self.bars {
            bar.draw(y, length(bar.value), svg);
            y += BAR_HEIGHT;
        }
        // Over the bars, and below their labels.
        if let Some(mark) = self.mark {
            let x = f64::from(START) + length(mark);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{y}\" stroke=\"#1f2328\" stroke-dasharray=\"3 3\"/>",
                top + GROUP_HEIGHT - 2
            );
        }
        for (bar, top) in self.bars.iter().zip((top + GROUP_HEIGHT..).step_by(BAR_HEIGHT as usize)) {
            bar.draw_label(top, length(bar.value), svg);
        }
    }
}

impl Bar {
    fn draw(&self, top: u32, length: f64, svg: &mut String) {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{START}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"{}/>",
            START - 8,
            top + 14,
            escaped(&self.name),
            top + 2,
            BAR_HEIGHT - 4,
            COLOURS[self.series % COLOURS.len()],
            if self.is_pale { " fill-opacity=\"0.45\"" } else { "" },
        );
    }

    /// Writes the figure after the bar, with a white edge where a line crosses it.
    fn draw_label(&self, top: u32, length: f64, svg: &mut String) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" stroke=\"#ffffff\" stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
            f64::from(START) + length + 6.0,
            top + 14,
            escaped(&self.label),
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: f64) -> Bar {
        Bar { name: name.to_owned(), series: 0, is_pale: false, value, label: format!("{value} s") }
    }

    fn chart(mark: Option<f64>) -> String {
        let groups =
            vec![Group { name: "A & B".to_owned(), bars: vec![bar("one", 1.0), bar("two", 4.0)], mark }];
        let description = ["Less < more.".to_owned(), "Here.".to_owned()];
        Chart { title: "Title".to_owned(), description, groups }.svg()
    }

    #[test]
    fn longest_bar_fills_the_width_and_others_are_in_proportion() {
        let svg = chart(Some(2.0));
        assert!(svg.contains("width=\"460.0\"") && svg.contains("width=\"115.0\""), "{svg}");
        assert!(svg.contains("<line x1=\"360.0\""), "{svg}");
        let svg = chart(Some(8.0));
        assert!(svg.contains("width=\"230.0\"") && svg.contains("<line x1=\"590.0\""), "{svg}");
        assert!(!chart(None).contains("<line"));
    }

    #[test]
    fn texts_are_escaped_and_described() {
        let svg = chart(None);
        assert!(svg.contains("<title id=\"title\">Title</title>"), "{svg}");
        assert!(svg.contains("<desc id=\"description\">Less &lt; more. Here.</desc>"), "{svg}");
        assert!(svg.contains(">A &amp; B</text>") && svg.contains(">4 s</text>"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
