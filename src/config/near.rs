//! "Did you mean": the known word nearest to one that is not known.
//!
//! Pure and small: an edit distance with a bound that grows with the word, and the habit of other
//! programs of writing the same word without hyphens or shortened ("leastconn").

/// The longest word that is compared at all, in octets; nothing we know is longer.
const WORD_LENGTH_MAX: usize = 64;
/// Known words that one help lists.
const LISTED_MAX: usize = 8;

/// The nearest of `known`, if one is near enough to be what was meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.is_empty() || word.len() > WORD_LENGTH_MAX {
        return None;
    }
    let plain = plain(word);
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter_map(|candidate| {
            let candidate_plain = self::plain(candidate);
            let distance = if shortened(&plain, &candidate_plain) {
                1
            } else {
                distance(&plain, &candidate_plain)
            };
            (distance <= allowed).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The one of `known` that is the same word but for case, hyphens and underscores.
pub(super) fn same<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > WORD_LENGTH_MAX {
        return None;
    }
    let plain = plain(word);
    let mut known = known.into_iter();
    known.find(|candidate| self::plain(candidate) == plain)
}

/// `help` for a word that is not known: the nearest one, or those that are known.
pub(super) fn help(word: &str, known: &[&str]) -> Option<String> {
    if let Some(near) = nearest(word, known.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    list(word, known)
}

/// All of a short list; of a long one those that are most like the word.
pub(super) fn list(word: &str, known: &[&str]) -> Option<String> {
    if known.is_empty() {
        return None;
    }
    if known.len() <= LISTED_MAX || word.len() > WORD_LENGTH_MAX {
        let listed = &known[..known.len().min(LISTED_MAX)];
        return Some(format!("known here: {}", listed.join(", ")));
    }
    let plain = plain(word);
    let mut by_distance: Vec<(usize, &str)> = known
        .iter()
        .map(|candidate| (distance(&plain, &self::plain(candidate)), *candidate))
        .collect();
    by_distance.sort_by_key(|(distance, _)| *distance);
    let nearest: Vec<&str> = by_distance[..LISTED_MAX]
        .iter()
        .map(|(_, one)| *one)
        .collect();
    Some(format!(
        "known here: {} and {} more; posthouse config-reference shows all",
        nearest.join(", "),
        known.len() - LISTED_MAX
    ))
}

/// A word without what programs write in different ways.
pub(super) fn plain(word: &str) -> String {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' ' | '.'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Whether one is the beginning of the other and long enough to say something.
fn shortened(one: &str, other: &str) -> bool {
    let shorter = one.len().min(other.len());
    shorter >= 4 && (one.starts_with(other) || other.starts_with(one))
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        rows[i][0] = i;
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits_and_swaps() {
        for (from, to, edits) in [
            ("", "", 0),
            ("pool", "pool", 0),
            ("pool", "pol", 1),
            ("pol", "pool", 1),
            ("opol", "pool", 1),
            ("weight", "wieght", 1),
            ("tier", "rise", 3),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(from, to), edits, "{from} → {to}");
        }
    }

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let known = ["least-connections", "round-robin", "source-hash", "first"];
        assert_eq!(nearest("leastconn", known), Some("least-connections"));
        assert_eq!(nearest("roundrobin", known), Some("round-robin"));
        assert_eq!(nearest("source", known), Some("source-hash"));
        assert_eq!(nearest("frist", known), Some("first"));
        assert_eq!(nearest("weighted", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }

    #[test]
    fn without_a_near_word_all_known_ones_are_listed() {
        assert_eq!(
            help("zzz", &["text", "json"]).as_deref(),
            Some("known here: text, json")
        );
        assert_eq!(
            help("jsn", &["text", "json"]).as_deref(),
            Some("did you mean `json`?")
        );
        assert_eq!(help("zzz", &[]), None);
    }

    #[test]
    fn of_many_known_words_the_most_alike_are_listed() {
        let known: Vec<String> = (10..40).map(|number| format!("word{number}")).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let listed = list("zz39", &known).expect("some");
        assert!(listed.starts_with("known here: word39, "), "{listed}");
        assert!(listed.contains(" and 22 more; "), "{listed}");
        let listed = list(&"z".repeat(1000), &known).expect("some");
        assert!(listed.len() < 100, "{listed}");
    }

    #[test]
    fn the_same_word_in_another_habit_is_the_same() {
        let known = ["max_sessions", "max_sessions_per_client"];
        assert_eq!(same("Max-Sessions", known), Some("max_sessions"));
        assert_eq!(same("max_session", known), None);
    }
}
