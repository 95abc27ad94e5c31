use super::*;
use crate::app::config::documents::tests::is_up_to_date;

#[test]
fn the_page_of_reasons_is_up_to_date() {
    is_up_to_date("docs/reasons.md", &reasons());
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    is_up_to_date("docs/metrics.md", &metrics());
}

#[test]
fn the_page_of_the_log_is_up_to_date() {
    is_up_to_date("docs/log.md", &log());
}

#[test]
fn every_name_is_on_its_page_once_and_no_cell_breaks_its_table() {
    let (reasons, metrics, log) = (reasons(), metrics(), log());
    let once = |page: &str, cell: &str| page.matches(&format!("| {cell} |")).count();
    for name in Outcome::ALL.iter().map(|o| o.name()).chain(Rescue::ALL.iter().map(|r| r.name())) {
        assert_eq!(once(&reasons, &format!("`{name}`")), 1, "{name}");
    }
    for reason in Reason::ALL {
        assert_eq!(once(&reasons, &format!("`{}`", reason.name())), 1, "{}", reason.name());
    }
    for family in &FAMILIES {
        assert!(metrics.contains(&format!("| `{}", family.name)), "{}", family.name);
        assert!(!family.help.is_empty());
    }
    for page in [&reasons, &metrics, &log] {
        let rows = page.lines().filter(|line| line.starts_with('|'));
        rows.for_each(|line| assert!(matches!(line.matches('|').count(), 3 | 5), "{line}"));
    }
}
