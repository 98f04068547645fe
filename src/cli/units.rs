//! Numbers for people.

/// Bytes with three digits and a decimal unit.
pub(super) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 || unit == "TB" {
            return match value {
                _ if unit == "B" => format!("{bytes} B"),
                value if value < 9.995 => format!("{value:.2} {unit}"),
                value if value < 99.95 => format!("{value:.1} {unit}"),
                value => format!("{value:.0} {unit}"),
            };
        }
        value /= 1000.0;
    }
    String::new()
}

/// `1 step`, `2 steps`, `12,345 steps`.
pub(super) fn count(n: u64, what: &str) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {what}{}", if n == 1 { "" } else { "s" })
}

/// `part` as a percentage of `whole`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.1} %", part as f64 / whole as f64 * 100.0) }
}

/// Throughput.
pub(super) fn rate(bytes: u64, seconds: f64) -> String {
    format!("{:.0} MB/s", bytes as f64 / 1e6 / seconds.max(1e-6))
}

/// Characters of a line of the terminal that standard output is.
pub(super) fn terminal_width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_well() {
        assert_eq!((bytes(0), bytes(999), bytes(1000)), ("0 B".into(), "999 B".into(), "1.00 kB".into()));
        assert_eq!((bytes(17_172_000), bytes(430_000_000_000)), ("17.2 MB".into(), "430 GB".into()));
        assert_eq!(bytes(999_700), "1.00 MB");
        assert_eq!((count(1, "step"), count(1_234_567, "step")), ("1 step".into(), "1,234,567 steps".into()));
        assert_eq!(percent(1, 3), "33.3 %");
    }
}
