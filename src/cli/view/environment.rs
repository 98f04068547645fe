//! What is known of a terminal: from the environment, from the system, and from what it answers.

use super::terminal::Graphics;

/// What the environment says of the terminal.
pub(super) struct Environment {
    /// Of a terminal that does not answer.
    pub guess: Graphics,
    pub may_ask: bool,
    pub true_color: bool,
    pub columns: Option<usize>,
    pub rows: Option<usize>,
}

impl Environment {
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| variable(name).unwrap_or_default();
        let any = |names: &[&str]| names.iter().any(|name| !value(name).is_empty());
        let (term, program) = (value("TERM"), value("TERM_PROGRAM"));
        let within = |names: &[&str]| names.iter().any(|name| term.contains(name) || program == *name);
        // A multiplexer draws for terminals that may come and go. It keeps pictures to itself, or breaks them.
        let screen = any(&["STY"]) || term.starts_with("screen");
        let multiplexed = screen || any(&["TMUX", "ZELLIJ"]) || term.starts_with("tmux");
        let plain = multiplexed || matches!(term.as_str(), "" | "dumb" | "linux");
        let kitty = any(&["KITTY_WINDOW_ID", "KONSOLE_VERSION", "WEZTERM_EXECUTABLE", "WEZTERM_PANE"])
            || within(&["kitty", "ghostty", "WezTerm", "wezterm"]);
        let sixel = any(&["ITERM_SESSION_ID"])
            || value("LC_TERMINAL") == "iTerm2"
            || within(&["iTerm.app", "foot", "mlterm", "contour"]);
        let guess = match (plain, kitty, sixel) {
            (false, true, _) => Graphics::Kitty,
            (false, false, true) => Graphics::Sixel,
            _ => Graphics::HalfBlocks,
        };
        let true_color = matches!(value("COLORTERM").as_str(), "truecolor" | "24bit")
            || guess != Graphics::HalfBlocks
            || any(&["WT_SESSION"])
            || within(&["direct", "alacritty", "vscode"]);
        let size = |name: &str| value(name).parse::<u16>().ok().filter(|&size| size > 0).map(usize::from);
        Self {
            guess,
            // Apple's terminal prints the question.
            may_ask: !plain && program != "Apple_Terminal",
            // `screen` hands on what the terminal around it says.
            true_color: true_color && (!screen || any(&["TMUX"])),
            columns: size("COLUMNS"),
            rows: size("LINES"),
        }
    }
}

/// What the system says of the terminal; 0 is unknown.
#[derive(Clone, Copy, Default)]
pub(super) struct Window {
    pub columns: usize,
    pub rows: usize,
    /// Pixels of all, width and height.
    pub pixels: (usize, usize),
}

impl Window {
    pub fn cell(self) -> Option<(usize, usize)> {
        let (width, height) = (self.pixels.0.checked_div(self.columns)?, self.pixels.1.checked_div(self.rows)?);
        (width > 0 && height > 0).then_some((width, height))
    }
}

/// What a terminal answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub kitty: bool,
    pub sixel: bool,
    pub cell: Option<(usize, usize)>,
    /// Whether the last question was answered, which all terminals do.
    pub complete: bool,
}

#[cfg(any(unix, test))]
impl Answers {
    /// The answers among the bytes that came, whole or not, between keys or not.
    pub fn parse(heard: &[u8]) -> Self {
        let mut answers = Self::default();
        for sequence in heard.split(|&byte| byte == 0x1b).skip(1) {
            match sequence {
                // A kitty of the id that was asked for: `_Gi=31;OK`.
                [b'_', b'G', body @ ..] => {
                    let mut parts = body.splitn(2, |&byte| byte == b';');
                    let mut keys = parts.next().unwrap_or_default().split(|&byte| byte == b',');
                    answers.kitty |= keys.any(|key| key == b"i=31") && parts.next() == Some(b"OK");
                }
                [b'[', body @ ..] => answers.add_control(body),
                _ => {}
            }
        }
        answers
    }

    /// A control sequence: what is before its end are parameters.
    fn add_control(&mut self, body: &[u8]) {
        let Some(end) = body.iter().position(|byte| (0x40..=0x7e).contains(byte)) else { return };
        let parameters = std::str::from_utf8(&body[..end]).unwrap_or_default();
        match (body[end], parameters.strip_prefix('?')) {
            // Primary device attributes: `[?62;4;22c`.
            (b'c', Some(attributes)) => {
                self.sixel |= attributes.split(';').skip(1).any(|attribute| attribute == "4");
                self.complete = true;
            }
            // The size of a cell: `[6;height;widtht`.
            (b't', None) => {
                let numbers: Vec<usize> = parameters.split(';').map_while(|number| number.parse().ok()).collect();
                if let [6, height @ 1..1000, width @ 1..1000] = numbers[..] {
                    self.cell = Some((width, height));
                }
            }
            _ => {}
        }
    }
}
