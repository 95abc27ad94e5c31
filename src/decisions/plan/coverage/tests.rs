use super::*;
use crate::words::route::Route;

fn entry(kind: &str, name: &str, actions: &[&str]) -> Access {
    let actions = actions.iter().map(|action| (*action).to_owned()).collect();
    Access { kind: kind.to_owned(), name: name.to_owned(), actions }
}

/// Whether `access` covers the request.
fn covered(access: &[Access], method: &str, target: &str) -> bool {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Route::Registry(registry) = Route::of(path) else { panic!("{path}") };
    let (method, mount) = (Method::from_bytes(method.as_bytes()).expect("a method"), mount(query));
    covers(access, &need(&registry, &method, &mount))
}

#[test]
fn a5_replay_is_for_what_the_token_itself_could_do() {
    let pull = [entry("repository", "p/r", &["pull"])];
    let push = [entry("repository", "p/r", &["pull", "push"])];
    let all = [entry("repository", "p/r", &["pull", "push", "delete"])];
    let rows: [(&[Access], &str, &str, bool); 22] = [
        (&[], "GET", "/v2/", true),
        (&pull, "GET", "/v2/p/r/manifests/1", true),
        (&pull, "HEAD", "/v2/p/r/blobs/sha256:ab", true),
        (&pull, "GET", "/v2/p/r/tags/list", true),
        (&pull, "GET", "/v2/p/r/referrers/sha256:ab", true),
        (&pull, "GET", "/v2/p/other/manifests/1", true),
        (&pull, "GET", "/v2/q/r/manifests/1", false),
        (&pull, "GET", "/v2/pp/r/manifests/1", false),
        (&pull, "PUT", "/v2/p/r/manifests/1", false),
        (&pull, "POST", "/v2/p/r/blobs/uploads/", false),
        (&pull, "DELETE", "/v2/p/r/manifests/1", false),
        (&push, "PUT", "/v2/p/r/manifests/1", true),
        (&push, "POST", "/v2/p/r/blobs/uploads/", true),
        (&push, "PATCH", "/v2/p/r/blobs/uploads/u", true),
        (&push, "GET", "/v2/p/r/blobs/uploads/u", true),
        (&push, "DELETE", "/v2/p/r/manifests/1", false),
        (&push, "DELETE", "/v2/p/r/blobs/uploads/u", false),
        (&all, "DELETE", "/v2/p/r/manifests/1", true),
        (&all, "DELETE", "/v2/p/r/blobs/uploads/u", true),
        (&all, "GET", "/v2/_catalog", false),
        (&all, "GET", "/v2/p/r/unheard/of", false),
        (&[], "GET", "/v2/p/r/manifests/1", false),
    ];
    for (access, method, target, want) in rows {
        assert_eq!(covered(access, method, target), want, "{method} {target} with {access:?}");
    }
}

#[test]
fn a5_a_mount_needs_to_pull_what_it_mounts() {
    let own = entry("repository", "p/r", &["pull", "push"]);
    let both = [own.clone(), entry("repository", "q/base", &["pull"])];
    let push_only = [own.clone(), entry("repository", "q/base", &["push"])];
    let mount = |query: &str| format!("/v2/p/r/blobs/uploads/?mount=sha256:ab&{query}");
    let rows: [(&[Access], &str, bool); 12] = [
        (&both, "from=q/base", true),
        (&both, "from=q%2Fbase", true),
        (&both, "from=q/other", true),
        (&both, "from=p/r", true),
        (&push_only, "from=q/base", false),
        (std::slice::from_ref(&own), "from=q/base", false),
        (std::slice::from_ref(&own), "from=q%2Fbase", false),
        (std::slice::from_ref(&own), "%66rom=q/base", false),
        (std::slice::from_ref(&own), "fro%6d=q/base", false),
        (std::slice::from_ref(&own), "x=1;from=q/base", false),
        (std::slice::from_ref(&own), "from=p/r&from=q/base", false),
        (std::slice::from_ref(&own), "from=p%2Fr", true),
    ];
    for (access, query, want) in rows {
        assert_eq!(covered(access, "POST", &mount(query)), want, "{query} with {access:?}");
    }
}

#[test]
fn a_mount_that_two_readers_could_read_differently_is_unclear() {
    for query in
        ["from=", "from", "from=%", "from=%zz", "from=%ff/r", "from=a+b/r", "from=a%00/r", "from=%2566"]
    {
        assert_eq!(mount(Some(query)), Mount::Unclear, "{query}");
    }
    for query in ["", "mount=sha256:ab", "mount=x&digest=%20", "FROM=q/r", "from2=q/r", "[]=from"] {
        assert_eq!(mount(Some(query)), Mount::None, "{query}");
    }
    assert_eq!(mount(None), Mount::None);
}

/// core keeps one entry a project, the last (`v2token` writes each over the one before).
#[test]
fn a5_of_several_entries_of_a_project_the_last_one_counts() {
    let wide = entry("repository", "p/a", &["pull", "push", "delete"]);
    let narrow = entry("repository", "p/b", &["pull"]);
    let put = |access: &[Access]| covered(access, "PUT", "/v2/p/a/manifests/1");
    assert!(put(&[narrow.clone(), wide.clone()]));
    assert!(!put(&[wide.clone(), narrow]));
    assert!(!put(&[wide, entry("repository", "p", &[])]), "an entry without actions takes away all");
}

#[test]
fn other_types_and_wild_cards_grant_nothing_here() {
    for access in [
        entry("registry", "p/r", &["pull"]),
        entry("", "p/r", &["pull"]),
        entry("Repository", "p/r", &["pull"]),
        entry("repository", "p/r", &["*"]),
        entry("repository", "p/r", &["PULL"]),
        entry("repository", "*", &["pull"]),
        entry("repository", "", &["pull"]),
        entry("repository", "/p/r", &["pull"]),
    ] {
        assert!(!covered(std::slice::from_ref(&access), "GET", "/v2/p/r/manifests/1"), "{access:?}");
    }
    let catalog = entry("registry", "catalog", &["*"]);
    assert!(!covered(&[catalog], "GET", "/v2/_catalog"), "Basic's alone (C10)");
}

#[test]
fn a5_a_token_of_our_own_is_good_for_what_was_asked_for_and_no_more() {
    let asked = |scopes: &[&str]| asked(&scopes.iter().map(|text| Scope::parse(text)).collect::<Vec<_>>());
    let pushes = ["repository:p/r:pull,push", "repository:p/base:pull", "repository:q/base:pull"];
    let rows: [(&[&str], &str, &str, bool); 14] = [
        (&[], "GET", "/v2/", true),
        (&[], "GET", "/v2/p/r/manifests/1", false),
        (&["repository:p/r:pull"], "GET", "/v2/p/r/manifests/1", true),
        (&["repository:p/r:pull"], "GET", "/v2/p/other/manifests/1", true),
        (&["repository:p/r:pull"], "GET", "/v2/q/r/manifests/1", false),
        (&["repository:p/r:pull"], "POST", "/v2/p/r/blobs/uploads/", false),
        (&["repository:p/r:*"], "DELETE", "/v2/p/r/manifests/1", true),
        (&pushes, "POST", "/v2/p/r/blobs/uploads/?mount=sha256:ab&from=p/base", true),
        (&pushes, "POST", "/v2/p/r/blobs/uploads/?mount=sha256:ab&from=q/base", true),
        (&pushes, "POST", "/v2/q/r/blobs/uploads/", false),
        (&pushes, "DELETE", "/v2/p/r/manifests/1", false),
        (&["registry:catalog:*"], "GET", "/v2/_catalog", false),
        (&["repository:p:pull"], "GET", "/v2/p/r/manifests/1", false),
        (&["other:p/r:pull"], "GET", "/v2/p/r/manifests/1", false),
    ];
    for (scopes, method, target, want) in rows {
        assert_eq!(covered(&asked(scopes), method, target), want, "{method} {target} with {scopes:?}");
    }
}
