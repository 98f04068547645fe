//! The page that people open: texts, facts, pictures and tables as one HTML file that asks no network for anything.
//!
//! What it says comes from the caller; how it looks is `page.css`, and what scripts add is `page.js`. All there is to
//! read is there without scripts.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter, Write as _};
use std::io::{self, Write};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// As many rows as a table shows before it is asked for all; `page.css` counts the same.
const FIRST_ROWS: usize = 15;

/// From so many characters on, a fact takes a whole line, and a cell may break anywhere.
const LONG: usize = 48;

/// A whole page. All texts in it are plain: what would be markup is escaped.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub title: String,
    pub subtitle: String,
    /// What made the page and when: `attnkit 0.1.0, 2026-11-28`.
    pub footer: String,
    pub sections: Vec<Section>,
}

/// A part of the page with a line in its table of contents.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// What links end in. Other characters than letters, digits, `-` and `_` are replaced, and a second one of the
    /// same name is numbered.
    pub id: String,
    pub title: String,
    pub blocks: Vec<Block>,
}

/// What stands in a section, from top to bottom.
#[derive(Clone, Debug)]
pub enum Block {
    /// A paragraph; what stands between backticks is code.
    Text(String),
    /// What to know before reading on, set apart; backticks as in a paragraph.
    Notes(Vec<String>),
    /// Names and values, as cards.
    Facts(Vec<(String, String)>),
    Figure(Figure),
    /// Pictures side by side, as many as fit.
    Figures(Vec<Figure>),
    Table(Table),
}

/// A picture, what it shows and how to make it.
#[derive(Clone, Debug)]
pub struct Figure {
    pub picture: Graphic,
    /// What somebody who cannot see the picture should know; the caption where this is empty.
    pub alt: String,
    /// Backticks as in a paragraph.
    pub caption: String,
    /// The command that made it.
    pub command: Option<String>,
}

/// A picture's bytes.
#[derive(Clone, Debug)]
pub enum Graphic {
    /// A drawing for a light ground, from a renderer that is trusted: well-formed XML with a `viewBox`, attributes in
    /// double quotes and references to ids as `href="#id"` and `url(#id)`. Its ids may be those of another drawing on
    /// the page. It has no `<style>`, which would hold for the whole page. Without an `<svg>` element it counts as no
    /// picture.
    Svg(String),
    /// A still, or an animated one.
    Webp(Vec<u8>),
    /// No picture: the page says in words what it would show.
    None,
}

/// Rows of cells under named columns.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Backticks as in a paragraph. Readers who cannot see find the table by it, so no two should have the same.
    pub caption: String,
    pub columns: Vec<Column>,
    /// One cell for each column: what a row lacks is missing, and what it has beyond the columns is left out.
    pub rows: Vec<Vec<Cell>>,
    /// The command that made it.
    pub command: Option<String>,
}

/// A column of a table.
#[derive(Clone, Debug, Default)]
pub struct Column {
    pub name: String,
    /// What it means; may be empty.
    pub about: String,
    /// Whether the column is set to the right.
    pub numeric: bool,
}

/// One value of a table.
#[derive(Clone, Debug)]
pub enum Cell {
    Text(String),
    /// Shown with four digits that matter, whole numbers in full. What is not finite is sorted last.
    Number(f64),
    /// An en dash, sorted last.
    Missing,
}

impl Page {
    /// Writes the page as UTF-8, in many small pieces: `to` had better be buffered.
    ///
    /// # Errors
    /// What `to` says.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let [title, subtitle, footer] = [&self.title, &self.subtitle, &self.footer].map(|text| Escaped(text));
        let anchors = self.anchors();
        let script_hash = Sha256::digest(SCRIPT);
        let script_hash = Base64Display::new(&script_hash, &STANDARD);
        write!(
            to,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
             style-src 'unsafe-inline'; script-src 'sha256-{script_hash}'; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n<script>{SCRIPT}</script>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#_main\">Skip to the report</a>\n\
             <header class=\"top\"><div><h1>{title}</h1>"
        )?;
        if !self.subtitle.is_empty() {
            write!(to, "<p class=\"subtitle\">{subtitle}</p>")?;
        }
        writeln!(to, "</div></header>\n<div class=\"layout\">\n<div class=\"contents wide\">")?;
        self.write_contents(&anchors, to)?;
        writeln!(to, "</div>\n<details class=\"contents narrow\"><summary>Contents</summary>")?;
        self.write_contents(&anchors, to)?;
        writeln!(to, "</details>\n<main id=\"_main\" tabindex=\"-1\">")?;
        let mut sheet = Sheet { to, figures: 0 };
        for (section, anchor) in self.sections.iter().zip(&anchors) {
            let title = Escaped(&section.title);
            writeln!(sheet.to, "<section id=\"{anchor}\" aria-labelledby=\"{anchor}_\">")?;
            writeln!(sheet.to, "<h2 id=\"{anchor}_\">{title}</h2>")?;
            section.blocks.iter().try_for_each(|block| sheet.block(block))?;
            writeln!(sheet.to, "</section>")?;
        }
        writeln!(to, "</main>\n</div>\n<footer class=\"foot\">{footer}</footer>\n</body>\n</html>")
    }

    fn write_contents(&self, anchors: &[String], to: &mut dyn Write) -> io::Result<()> {
        writeln!(to, "<nav aria-label=\"Contents\"><ol>")?;
        for (section, anchor) in self.sections.iter().zip(anchors) {
            writeln!(to, "<li><a href=\"#{anchor}\">{}</a></li>", Escaped(&section.title))?;
        }
        writeln!(to, "</ol></nav>")
    }

    /// The sections' ids, all different. None begins or ends with `_`, as the page's own do.
    fn anchors(&self) -> Vec<String> {
        let mut taken = HashSet::new();
        let mut anchors = Vec::new();
        for section in &self.sections {
            let plain = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '-' };
            let id: String = section.id.chars().map(plain).collect();
            let id = Some(id.trim_matches('_')).filter(|id| !id.is_empty()).unwrap_or("section");
            let mut anchor = id.to_owned();
            let mut count = 1;
            while !taken.insert(anchor.clone()) {
                count += 1;
                anchor = format!("{id}-{count}");
            }
            anchors.push(anchor);
        }
        anchors
    }
}

/// The page as it grows.
struct Sheet<'a> {
    to: &'a mut dyn Write,
    /// Figures so far: what the ids in their drawings are told apart by.
    figures: usize,
}

impl Sheet<'_> {
    fn block(&mut self, block: &Block) -> io::Result<()> {
        match block {
            Block::Text(text) => writeln!(self.to, "<p>{}</p>", Marked(text)),
            Block::Notes(notes) if notes.is_empty() => Ok(()),
            Block::Notes(notes) => {
                writeln!(self.to, "<div class=\"notes\" role=\"note\"><p>Before you read on</p>\n<ul>")?;
                notes.iter().try_for_each(|note| writeln!(self.to, "<li>{}</li>", Marked(note)))?;
                writeln!(self.to, "</ul></div>")
            }
            Block::Facts(facts) if facts.is_empty() => Ok(()),
            Block::Facts(facts) => {
                writeln!(self.to, "<dl class=\"facts\">")?;
                for (name, value) in facts {
                    let class = if is_long(value) { " class=\"long\"" } else { "" };
                    let [name, value] = [name, value].map(|text| Escaped(text));
                    writeln!(self.to, "<div{class}><dt>{name}</dt><dd>{value}</dd></div>")?;
                }
                writeln!(self.to, "</dl>")
            }
            Block::Figure(figure) => self.figure(figure),
            Block::Figures(figures) => {
                writeln!(self.to, "<div class=\"row\">")?;
                figures.iter().try_for_each(|figure| self.figure(figure))?;
                writeln!(self.to, "</div>")
            }
            Block::Table(table) => self.table(table),
        }
    }

    fn figure(&mut self, figure: &Figure) -> io::Result<()> {
        self.figures += 1;
        let alt = if figure.alt.is_empty() { &figure.caption.replace('`', "") } else { &figure.alt };
        let bitmap = |kind: &str, bytes: &[u8]| {
            let bytes = Base64Display::new(bytes, &STANDARD);
            let alt = Escaped(alt);
            Some(format!(
                "<div class=\"picture bitmap\"><img src=\"data:image/{kind};base64,{bytes}\" alt=\"{alt}\"></div>"
            ))
        };
        let (picture, is_film) = match &figure.picture {
            Graphic::Svg(svg) => {
                let svg = inlined(svg, &format!("_{}-", self.figures), alt);
                (svg.map(|svg| format!("<div class=\"picture\">{svg}</div>")), false)
            }
            Graphic::Webp(bytes) => (bitmap("webp", bytes), is_animated(bytes)),
            Graphic::None => (None, false),
        };
        match picture {
            // A film cannot be stopped, but it can be put away.
            Some(picture) if is_film => writeln!(
                self.to,
                "<div class=\"item pictured\"><figure><details class=\"film\" open><summary>Film</summary>\
                 {picture}</details>"
            )?,
            Some(picture) => writeln!(self.to, "<div class=\"item pictured\"><figure>{picture}")?,
            None if figure.alt.is_empty() => writeln!(self.to, "<div class=\"item\"><figure>")?,
            None => writeln!(self.to, "<div class=\"item\"><figure><p class=\"none\">{}</p>", Escaped(alt))?,
        }
        self.caption(&figure.caption)?;
        write!(self.to, "</figure>\n<div class=\"tools\">")?;
        self.command(figure.command.as_deref())
    }

    fn table(&mut self, table: &Table) -> io::Result<()> {
        let name = if table.caption.is_empty() { "Table" } else { &table.caption.replace('`', "") };
        let name = Escaped(name);
        let is_empty = table.rows.is_empty() || table.columns.is_empty();
        writeln!(self.to, "<div class=\"item{}\"><figure>", if is_empty { "" } else { " tabular" })?;
        self.caption(&table.caption)?;
        if is_empty {
            writeln!(self.to, "<p class=\"none\">No rows.</p>")?;
            write!(self.to, "</figure>\n<div class=\"tools\">")?;
            return self.command(table.command.as_deref());
        }
        let class = if table.rows.len() > FIRST_ROWS { " class=\"first\"" } else { "" };
        writeln!(self.to, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{name}\">")?;
        write!(self.to, "<table{class} aria-label=\"{name}\">\n<thead><tr>")?;
        for column in &table.columns {
            let class = if column.numeric { " class=\"right\"" } else { "" };
            write!(self.to, "<th scope=\"col\"{class}")?;
            if !column.about.is_empty() {
                write!(self.to, " title=\"{}\"", Escaped(&column.about))?;
            }
            write!(self.to, ">{}</th>", Escaped(&column.name))?;
        }
        writeln!(self.to, "</tr></thead>\n<tbody>")?;
        for row in &table.rows {
            write!(self.to, "<tr>")?;
            for (column, index) in table.columns.iter().zip(0..) {
                row.get(index).unwrap_or(&Cell::Missing).write(column, self.to)?;
            }
            writeln!(self.to, "</tr>")?;
        }
        writeln!(self.to, "</tbody></table></div>")?;
        write!(self.to, "</figure>\n<div class=\"tools\">")?;
        // Fingers have no tooltips.
        if table.columns.iter().any(|column| !column.about.is_empty()) {
            writeln!(self.to, "<details><summary>What the columns mean</summary><dl class=\"columns\">")?;
            for column in table.columns.iter().filter(|column| !column.about.is_empty()) {
                writeln!(self.to, "<dt>{}</dt><dd>{}</dd>", Escaped(&column.name), Escaped(&column.about))?;
            }
            writeln!(self.to, "</dl></details>")?;
        }
        self.command(table.command.as_deref())
    }

    fn caption(&mut self, caption: &str) -> io::Result<()> {
        if caption.is_empty() { Ok(()) } else { writeln!(self.to, "<figcaption>{}</figcaption>", Marked(caption)) }
    }

    /// Ends a figure, and in it the place where scripts put buttons.
    fn command(&mut self, command: Option<&str>) -> io::Result<()> {
        if let Some(command) = command {
            write!(self.to, "<details class=\"command\"><summary>Command</summary>")?;
            write!(self.to, "<pre><code>{}</code></pre></details>", Escaped(command))?;
        }
        writeln!(self.to, "</div></div>")
    }
}

impl Cell {
    fn write(&self, column: &Column, to: &mut dyn Write) -> io::Result<()> {
        let right = if column.numeric { " class=\"right\"" } else { "" };
        match self {
            Self::Missing => write!(to, "<td{right} data-last=\"missing\">–</td>"),
            Self::Number(value) if !value.is_finite() => write!(to, "<td{right} data-last=\"number\">{value}</td>"),
            Self::Number(value) => {
                let shown = digits(*value);
                if shown.parse() == Ok(*value) {
                    write!(to, "<td{right} data-number>{shown}</td>")
                } else {
                    write!(to, "<td{right} data-number title=\"{value:?}\">{shown}</td>")
                }
            }
            Self::Text(text) => {
                let class = if is_long(text) { " class=\"long\"" } else { right };
                write!(to, "<td{class}>{}</td>", Escaped(text))
            }
        }
    }
}

/// Four digits that matter; whole numbers, which count or name, in full.
fn digits(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.fract() == 0.0 && magnitude < 1e15 {
        return format!("{value:.0}");
    }
    if !(1e-4..1e7).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between -4 and 7
    let decimals = (3 - magnitude.log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn is_long(text: &str) -> bool {
    text.chars().nth(LONG).is_some()
}

/// Whether a WebP says in its extended header that it is a film.
fn is_animated(webp: &[u8]) -> bool {
    webp.get(12..16) == Some(b"VP8X") && webp.get(20).is_some_and(|flags| flags & 2 != 0)
}

/// Text where markup is expected, in attributes, too. What browsers would obey or refuse is written as escapes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            '\n' | '\t' => f.write_char(c),
            // Controls, marks that turn the direction of what follows, and what is no character.
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fdd0}'..='\u{fdef}' => {
                Display::fmt(&c.escape_unicode(), f)
            }
            c if c.is_control() || u32::from(c) & 0xfffe == 0xfffe => Display::fmt(&c.escape_default(), f),
            c => f.write_char(c),
        })
    }
}

/// Escaped text in which pairs of backticks make code.
struct Marked<'a>(&'a str);

impl Display for Marked<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((before, code, after)) =
            rest.split_once('`').and_then(|(before, on)| on.split_once('`').map(|(code, after)| (before, code, after)))
        {
            write!(f, "{}<code>{}</code>", Escaped(before), Escaped(code))?;
            rest = after;
        }
        Escaped(rest).fmt(f)
    }
}

/// A drawing as it stands in the page: one `<svg>` element whose ids begin with `prefix` and whose name is `alt`;
/// nothing where there is no such element.
fn inlined(svg: &str, prefix: &str, alt: &str) -> Option<String> {
    let svg = svg.get(svg.find("<svg")? + 1..svg.rfind("</svg>")? + "</svg>".len())?;
    let name = match alt {
        "" => "aria-hidden=\"true\"".to_owned(),
        _ => format!("role=\"img\" aria-label=\"{}\"", Escaped(alt)),
    };
    let mut out = format!("<svg {name}");
    for (index, piece) in svg.split('<').enumerate() {
        let mut rest = if index == 0 { &piece["svg".len()..] } else { piece };
        out.push_str(if index == 0 { "" } else { "<" });
        // From attribute to attribute, until the tag ends: what follows is text and stays what it is.
        while let Some((before, on)) = rest.split_once("=\"").filter(|(before, _)| !before.contains('>'))
            && let Some((value, after)) = on.split_once('"')
        {
            rest = after;
            let value = match before.trim_start().rsplit(char::is_whitespace).next().unwrap_or(before) {
                "role" | "aria-label" | "aria-labelledby" | "aria-describedby" | "aria-hidden" if index == 0 => {
                    continue;
                }
                "id" => format!("{prefix}{value}"),
                "href" | "xlink:href" if value.starts_with('#') => format!("#{prefix}{}", &value[1..]),
                _ => value.replace("url(#", &format!("url(#{prefix}")),
            };
            out.extend([before, "=\"", &value, "\""]);
        }
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "</script><img src=x onerror='alert(1)'>\"&`x` \u{202e}\u{0}\u{fffe}";

    fn written(blocks: Vec<Block>) -> String {
        let section = Section { id: "heads".into(), title: EVIL.into(), blocks };
        let page = Page { title: EVIL.into(), subtitle: EVIL.into(), footer: EVIL.into(), sections: vec![section] };
        let mut bytes = Vec::new();
        page.write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn drawing(svg: &str, alt: &str) -> Figure {
        Figure { picture: Graphic::Svg(svg.into()), alt: alt.into(), caption: "Entropy".into(), command: None }
    }

    fn numbers(rows: usize) -> Table {
        let columns = vec![Column { name: "mean".into(), about: String::new(), numeric: true }];
        Table { columns, rows: vec![vec![Cell::Number(1.0)]; rows], ..Table::default() }
    }

    #[test]
    fn no_text_becomes_markup() {
        let evil = || EVIL.to_owned();
        let figure = Figure { picture: Graphic::None, alt: evil(), caption: evil(), command: Some(evil()) };
        let picture = Figure { picture: Graphic::Webp(vec![]), ..figure.clone() };
        let drawn = Figure { picture: Graphic::Svg("<svg></svg>".into()), ..figure.clone() };
        let columns = vec![Column { name: evil(), about: evil(), numeric: false }];
        let rows = vec![vec![Cell::Text(evil())]];
        let html = written(vec![
            Block::Text(evil()),
            Block::Notes(vec![evil()]),
            Block::Facts(vec![(evil(), evil())]),
            Block::Figures(vec![figure, picture, drawn]),
            Block::Table(Table { caption: evil(), columns, rows, command: Some(evil()) }),
        ]);
        assert!(!html.contains("<img src=x") && !html.contains("'alert") && !html.contains("\"&`"));
        assert!(!html.contains(['\u{202e}', '\u{0}', '\u{fffe}']));
        assert_eq!(html.matches("</script>").count(), 1);
        let escaped = "&lt;/script&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&quot;&amp;";
        assert!(html.contains(&format!("<title>{escaped}`x` \\u{{202e}}\\u{{0}}\\u{{fffe}}</title>")));
        assert!(html.contains(&format!("<p>{escaped}<code>x</code>")));
    }

    #[test]
    fn a_lone_backtick_stays_one() {
        assert_eq!(Marked("a `b` c` <").to_string(), "a <code>b</code> c` &lt;");
        assert_eq!(Marked("``").to_string(), "<code></code>");
    }

    #[test]
    fn drawings_keep_their_ids_apart_and_texts_as_they_are() {
        let svg = "<?xml version=\"1.0\"?><svg role=\"x\" width=\"9\" aria-label=\"y\"><clipPath id=\"c\"/>\
            <g id=\"g\" clip-path=\"url(#c)\" style=\"mask:url(#c)\"><text>id=\"c\" > url(#c)</text></g>\
            <use href=\"#g\"/><a href=\"b\"/></svg>\n";
        let drawn = |n: u8| {
            format!(
                "<div class=\"picture\"><svg role=\"img\" aria-label=\"rises &amp; falls\" width=\"9\">\
                 <clipPath id=\"_{n}-c\"/><g id=\"_{n}-g\" clip-path=\"url(#_{n}-c)\" style=\"mask:url(#_{n}-c)\">\
                 <text>id=\"c\" > url(#c)</text></g><use href=\"#_{n}-g\"/><a href=\"b\"/></svg></div>"
            )
        };
        let html = written(vec![Block::Figures(vec![drawing(svg, "rises & falls"); 2])]);
        assert!(html.contains(&drawn(1)) && html.contains(&drawn(2)), "{html}");
        for svg in ["no drawing", "<svg>", "</svg><svg>"] {
            let html = written(vec![Block::Figure(drawing(svg, "rises"))]);
            assert!(html.contains("<p class=\"none\">rises</p>"));
        }
    }

    #[test]
    fn a_picture_without_a_description_is_named_by_its_caption() {
        assert!(written(vec![Block::Figure(drawing("<svg></svg>", ""))]).contains("aria-label=\"Entropy\""));
        let nameless = Figure { caption: String::new(), ..drawing("<svg></svg>", "") };
        assert!(written(vec![Block::Figure(nameless)]).contains("<svg aria-hidden=\"true\"></svg>"));
    }

    #[test]
    fn films_can_be_put_away_and_stills_cannot() {
        let webp = |flags: u8| [b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0".as_slice(), &[flags, 0, 0, 0]].concat();
        let of = |picture| Block::Figure(Figure { picture, ..drawing("", "") });
        let is_film = |picture| written(vec![of(picture)]).contains("class=\"film\"");
        assert!(is_film(Graphic::Webp(webp(2))));
        assert!(!is_film(Graphic::Webp(webp(0))) && !is_film(Graphic::Webp(vec![])));
    }

    #[test]
    fn numbers_are_short_and_keep_their_value() {
        let shown = [0.0, -0.0, 12_345_678.0, 0.123_456, -1234.56, 0.5, 1.5e-7, 2.5e9 + 0.5, f64::MAX].map(digits);
        assert_eq!(shown, ["0", "0", "12345678", "0.1235", "-1235", "0.5", "1.500e-7", "2.500e9", "1.798e308"]);
        let cells = [0.5, 0.123_456, f64::NAN, f64::NEG_INFINITY].map(Cell::Number).into_iter().chain([Cell::Missing]);
        let mut html = Vec::new();
        cells.for_each(|cell| cell.write(&Column::default(), &mut html).unwrap());
        let expected = "<td data-number>0.5</td><td data-number title=\"0.123456\">0.1235</td>\
            <td data-last=\"number\">NaN</td><td data-last=\"number\">-inf</td><td data-last=\"missing\">–</td>";
        assert_eq!(String::from_utf8(html).unwrap(), expected);
    }

    #[test]
    fn rows_are_as_wide_as_the_header_and_long_tables_begin_short() {
        let ragged = Table { rows: vec![vec![], vec![Cell::Missing; 3]], ..numbers(0) };
        assert_eq!(written(vec![Block::Table(ragged)]).matches("<td").count(), 2);
        assert!(written(vec![Block::Table(numbers(FIRST_ROWS + 1))]).contains("<table class=\"first\""));
        assert!(!written(vec![Block::Table(numbers(FIRST_ROWS))]).contains("<table class=\"first\""));
        assert!(STYLE.contains(&format!(".first tbody tr:nth-child(n + {})", FIRST_ROWS + 1)));
        let none = written(vec![Block::Table(numbers(0))]);
        assert!(none.contains("No rows.") && !none.contains("class=\"item tabular\""));
    }

    #[test]
    fn links_reach_their_sections_whatever_these_are_called() {
        let ids = ["heads", "heads", "a b\"<", "_main", "", "heads-2", "頭"];
        let sections = ids.map(|id| Section { id: id.into(), ..Section::default() }).into();
        let page = Page { sections, ..Page::default() };
        assert_eq!(page.anchors(), ["heads", "heads-2", "a-b--", "main", "section", "heads-2-2", "頭"]);
    }

    #[test]
    fn the_page_itself_is_small_and_ends_no_element_early() {
        assert!(STYLE.len() + SCRIPT.len() < 20_000);
        assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--") && !STYLE.contains("</"));
        assert!(!SCRIPT.contains("http") && !STYLE.contains("http"));
    }

    /// As WCAG 2 has it: <https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>.
    #[test]
    fn colours_stand_out_in_light_and_dark() {
        let luminance = |hex: &str| {
            let wide: String = if hex.len() == 3 { hex.chars().flat_map(|c| [c, c]).collect() } else { hex.into() };
            let channels = [0, 2, 4].map(|at| f64::from(u8::from_str_radix(&wide[at..at + 2], 16).unwrap()) / 255.0);
            let linear = channels.map(|c| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) });
            0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        };
        let themes: Vec<&str> = STYLE.split("--paper: #").skip(1).collect();
        assert_eq!(themes.len(), 4); // light, dark as chosen, dark as the system has it, print
        for theme in themes {
            let theme = format!("--paper: #{}", theme.split('}').next().unwrap());
            let of = |name: &str| {
                let (_, on) = theme.split_once(&format!("--{name}: #")).unwrap();
                luminance(on.split(';').next().unwrap())
            };
            let contrast = |a: &str, b: &str| {
                let (a, b) = (of(a), of(b));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            for ground in ["paper", "card", "note"] {
                for text in ["ink", "quiet", "accent"] {
                    assert!(contrast(text, ground) >= 4.5, "{text} on {ground} in {theme}");
                }
            }
            assert!(contrast("edge", "paper") >= 3.0 && contrast("note-edge", "note") >= 3.0, "{theme}");
        }
    }
}
