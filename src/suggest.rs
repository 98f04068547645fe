//! What was probably meant by a name that is not known.

/// From this Jaro-Winkler similarity on, names are alike.
const ALIKE: f64 = 0.7;

/// The known names that are like one, the most like it first, each once.
#[must_use]
pub fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let likeness = |known: &'a str| (strsim::jaro_winkler(&name, &known.to_lowercase()), known);
    let mut alike: Vec<(f64, &str)> =
        known.into_iter().map(likeness).filter(|(likeness, _)| *likeness > ALIKE).collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    alike.dedup_by_key(|(_, name)| *name);
    alike.into_iter().map(|(_, name)| name).collect()
}

/// ` (did you mean `weight`?)`, or nothing if no known name is like it.
#[must_use]
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    near(name, known).first().map(|nearest| format!(" (did you mean `{nearest}`?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_comes_first() {
        assert_eq!(near("wieght", ["height", "weight", "token", "weight"]), ["weight", "height"]);
        assert_eq!(did_you_mean("Cosin", ["js", "cosine"]), " (did you mean `cosine`?)");
        assert_eq!(did_you_mean("x", ["js", "cosine"]), "");
    }
}
