//! A client's own words, without what differs each time.

/// The sentence that says why a command failed: the last line, out of its log's frame, with `…` for the registry's
/// address, repositories, digests and ids.
pub(super) fn plain(said: &str, registry: &str) -> String {
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or(said);
    let line = logged(line).unwrap_or_else(|| line.to_owned()).replace(registry, "…");
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The message of a line as logrus writes it: `time="…" level=fatal msg="…"`.
fn logged(line: &str) -> Option<String> {
    let (_, message) = line.split_once("msg=\"")?;
    let end = message.rfind('"')?;
    Some(message.get(..end)?.replace("\\\"", "\""))
}

/// A word with a digest, an id or the name of an image in it is another one each time.
fn word(word: &str) -> String {
    let differs = |part: &str| {
        let hex = part.len() >= 12 && part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        hex || part.starts_with("new-") || part.starts_with("base-") || part.starts_with("_state=")
    };
    let mut out = String::new();
    let mut part = String::new();
    for c in word.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '=') {
            part.push(c);
            continue;
        }
        out.push_str(if differs(&part) { "…" } else { &part });
        part.clear();
        out.extend(Some(c).filter(|c| *c != '\0'));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_each_time_is_left_out() {
        let digest = "2".repeat(64);
        let table = [
            (
                "noise\ntime=\"2026-01-01T00:00:00Z\" level=fatal msg=\"reading manifest v1 in 127.0.0.1:1/priv/base-3: unauthorized: \\\"x\\\"\"\n",
                "reading manifest v1 in …/priv/…: unauthorized: \"x\"".to_owned(),
            ),
            (
                "Error response from daemon: unauthorized",
                "Error response from daemon: unauthorized".to_owned(),
            ),
            (&format!("ctr: fetch sha256:{digest}: 500"), "ctr: fetch sha256:…: 500".to_owned()),
            (
                "PATCH http://127.0.0.1:1/v2/priv/new-00000000000000aa/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef?_state=abc: EOF",
                "PATCH http://…/v2/priv/…/blobs/uploads/…?…: EOF".to_owned(),
            ),
        ];
        for (said, want) in table {
            assert_eq!(plain(said, "127.0.0.1:1"), want);
        }
    }
}
