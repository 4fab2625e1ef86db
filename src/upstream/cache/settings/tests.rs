//! What the directives say, and what is wrong with them.

use super::*;
use crate::http::testing::{conf, fault, http, http_fault};

const PATH: &str = "proxy_cache_path /c keys_zone=z:1m";

/// The cache that a line describes.
fn path(parameters: &str) -> CachePath {
    let http = http(&format!("{PATH} {parameters}; server {{ location / {{ proxy_cache z; }} }}"));
    let found = http.servers[0].locations.find(b"/").unwrap();
    let caching = &found.outcome.location().unwrap().settings.proxy.caching;
    match &caching.cache.value {
        Chosen::Zone(zone) => zone.path.clone(),
        other => panic!("{other:?}"),
    }
}

fn caching(directives: &str) -> Caching {
    conf(directives).proxy.caching.clone()
}

#[test]
fn a_cache_is_described_by_its_parameters() {
    let plain = CachePath {
        folder: "/c".into(),
        levels: vec![],
        use_temp_path: true,
        name: b"z".to_vec(),
        size: 1 << 20,
        inactive: 600,
        max_size: i64::MAX as u64,
        min_free: 0,
        manager: Steps::default(),
        loader: Steps::default(),
    };
    assert_eq!(path(""), plain);
    let millis = Duration::from_millis;
    let cases: [(&str, fn(&mut CachePath)); 12] = [
        ("levels=1", |path| path.levels = vec![1]),
        ("levels=1:2:2", |path| path.levels = vec![1, 2, 2]),
        ("levels=2:1", |path| path.levels = vec![2, 1]),
        ("levels=", |_| {}),
        ("use_temp_path=off", |path| path.use_temp_path = false),
        ("use_temp_path=on", |_| {}),
        ("keys_zone=z:8k", |path| path.size = 8192),
        ("inactive=1h30m", |path| path.inactive = 5400),
        ("inactive=7", |path| path.inactive = 7),
        ("max_size=2g", |path| path.max_size = 2 << 30),
        ("min_free=10m", |path| path.min_free = 10 << 20),
        // The last one counts.
        ("inactive=1s inactive=2s", |path| path.inactive = 2),
    ];
    for (parameters, change) in cases {
        let mut expected = plain.clone();
        change(&mut expected);
        assert_eq!(path(parameters), expected, "{parameters}");
    }
    let steps = path(
        "loader_files=1 loader_sleep=2ms loader_threshold=3 manager_files=4 manager_sleep=5ms manager_threshold=1m",
    );
    assert_eq!(steps.loader, Steps { files: 1, sleep: millis(2), threshold: millis(3000) });
    assert_eq!(steps.manager, Steps { files: 4, sleep: millis(5), threshold: millis(60_000) });
}

#[test]
fn a_slash_at_the_end_of_a_folder_says_nothing() {
    let http = http("proxy_cache_path /some/where/ keys_zone=z:1m; server { proxy_cache z; location / { } }");
    let found = http.servers[0].locations.find(b"/").unwrap();
    let caching = &found.outcome.location().unwrap().settings.proxy.caching;
    let Chosen::Zone(zone) = &caching.cache.value else { panic!("{caching:?}") };
    assert_eq!(zone.path.folder, std::path::Path::new("/some/where"));
}

#[test]
fn a_parameter_that_cannot_be_is_told_in_nginxs_words() {
    let cases = [
        ("levels=3", "invalid \"levels\" \"levels=3\""),
        ("levels=0", "invalid \"levels\" \"levels=0\""),
        ("levels=12", "invalid \"levels\" \"levels=12\""),
        ("levels=1:", "invalid \"levels\" \"levels=1:\""),
        ("levels=:1", "invalid \"levels\" \"levels=:1\""),
        ("levels=1:2:1:2", "invalid \"levels\" \"levels=1:2:1:2\""),
        ("use_temp_path=yes", "invalid use_temp_path value \"use_temp_path=yes\", it must be \"on\" or \"off\""),
        ("use_temp_path=", "invalid use_temp_path value \"use_temp_path=\", it must be \"on\" or \"off\""),
        ("keys_zone=z", "invalid keys zone size \"keys_zone=z\""),
        ("keys_zone=z:x", "invalid keys zone size \"keys_zone=z:x\""),
        ("keys_zone=z:8191", "keys zone \"keys_zone=z:8191\" is too small"),
        ("keys_zone=:1m", "\"proxy_cache_path\" must have \"keys_zone\" parameter"),
        ("inactive=x", "invalid inactive value \"inactive=x\""),
        ("inactive=", "invalid inactive value \"inactive=\""),
        ("inactive=1ms", "invalid inactive value \"inactive=1ms\""),
        ("max_size=x", "invalid max_size value \"max_size=x\""),
        ("max_size=", "invalid max_size value \"max_size=\""),
        ("min_free=x", "invalid min_free value \"min_free=x\""),
        ("loader_files=x", "invalid loader_files value \"loader_files=x\""),
        ("loader_files=", "invalid loader_files value \"loader_files=\""),
        ("loader_sleep=x", "invalid loader_sleep value \"loader_sleep=x\""),
        ("loader_threshold=x", "invalid loader_threshold value \"loader_threshold=x\""),
        ("manager_files=-1", "invalid manager_files value \"manager_files=-1\""),
        ("manager_sleep=x", "invalid manager_sleep value \"manager_sleep=x\""),
        ("manager_threshold=x", "invalid manager_threshold value \"manager_threshold=x\""),
        ("other=1", "invalid parameter \"other=1\""),
        ("other", "invalid parameter \"other\""),
        ("purger=on", "invalid parameter \"purger=on\""),
    ];
    for (parameter, text) in cases {
        assert_eq!(http_fault(&format!("{PATH} {parameter};")), text, "{parameter}");
    }
    let missing = "\"proxy_cache_path\" must have \"keys_zone\" parameter";
    assert_eq!(http_fault("proxy_cache_path /c levels=1;"), missing);
    let count = "invalid number of arguments in \"proxy_cache_path\" directive";
    assert_eq!(http_fault("proxy_cache_path /c;"), count);
    assert_eq!(
        http_fault("server { proxy_cache_path /c keys_zone=z:1m; }"),
        "\"proxy_cache_path\" directive is not allowed here"
    );
}

#[test]
fn a_name_stands_for_one_cache() {
    for (directives, text) in [
        ("proxy_cache_path /a keys_zone=x:1m; proxy_cache_path /b keys_zone=x:1m;", "duplicate zone \"x\""),
        (
            "proxy_cache_path /a keys_zone=x:1m; fastcgi_cache_path /b keys_zone=x:1m;",
            "the shared memory zone \"x\" is already declared for a different use",
        ),
    ] {
        assert_eq!(http_fault(directives), text);
    }
}

#[test]
fn a_folder_belongs_to_one_cache() {
    for other in [
        "proxy_cache_path /c keys_zone=y:1m;",
        "proxy_cache_path /c levels=1 keys_zone=y:1m;",
        "fastcgi_cache_path /c keys_zone=y:1m;",
        "proxy_temp_path /c;",
        "uwsgi_temp_path /c 1;",
    ] {
        let text = "the same path name \"/c\" used";
        assert_eq!(http_fault(&format!("{PATH}; {other}")), text, "{other}");
        if other.contains("temp") {
            assert_eq!(http_fault(&format!("{other} {PATH};")), text, "{other}");
        }
    }
    http(&format!("{PATH}; proxy_temp_path /c/temp; fastcgi_temp_path /c/temp; server {{ }}"));
    http(&format!("{PATH}; proxy_cache_path /c/ keys_zone=y:1m; server {{ }}"));
}

#[test]
fn a_cache_is_known_by_its_name() {
    assert_eq!(fault("proxy_cache z;"), "\"proxy_cache\" zone \"z\" is unknown");
    assert_eq!(fault("uwsgi_cache z;"), "\"uwsgi_cache\" zone \"z\" is unknown");
    // Each protocol has its own.
    assert_eq!(
        http_fault(&format!("{PATH}; server {{ location / {{ scgi_cache z; scgi_cache_key k; }} }}")),
        "\"scgi_cache\" zone \"z\" is unknown"
    );
    // It may be defined behind its use, and what variables say is looked up later.
    assert_eq!(http_fault(&format!("server {{ location / {{ proxy_cache z; }} }} {PATH};")), "");
    assert!(matches!(caching("proxy_cache z$arg_x;").cache.value, Chosen::Variable(_)));
    assert!(matches!(caching("proxy_cache off;").cache.value, Chosen::Off));
    let incompatible = format!("{PATH}; server {{ location / {{ proxy_cache z; proxy_store on; }} }}");
    assert_eq!(http_fault(&incompatible), "\"proxy_store\" directive is incompatible with \"proxy_cache\"");
}

#[test]
fn a_status_has_its_time() {
    let valid = |directives: &str| {
        let caching = caching(directives);
        [200, 301, 302, 404, 500, 0].map(|status| caching.valid(status))
    };
    for (directives, expected) in [
        ("", [0, 0, 0, 0, 0, 0]),
        ("proxy_cache_valid 10m;", [600, 600, 600, 0, 0, 0]),
        ("proxy_cache_valid 404 1m;", [0, 0, 0, 60, 0, 0]),
        ("proxy_cache_valid 200 404 1h;", [3600, 0, 0, 3600, 0, 0]),
        ("proxy_cache_valid any 5;", [5, 5, 5, 5, 5, 5]),
        // The first that fits.
        ("proxy_cache_valid 200 0; proxy_cache_valid any 5;", [0, 5, 5, 5, 5, 5]),
        ("proxy_cache_valid any 5; proxy_cache_valid 200 9;", [5, 5, 5, 5, 5, 5]),
    ] {
        assert_eq!(valid(directives), expected, "{directives}");
    }
    for (arguments, text) in [
        ("x", "invalid time value \"x\""),
        ("200 1ms", "invalid time value \"1ms\""),
        ("99 1m", "invalid status \"99\""),
        ("600 1m", "invalid status \"600\""),
        ("1m 200", "invalid status \"1m\""),
        ("ANY 1m", "invalid status \"ANY\""),
        ("", "invalid number of arguments in \"proxy_cache_valid\" directive"),
    ] {
        assert_eq!(fault(&format!("proxy_cache_valid {arguments};")), text, "{arguments}");
    }
}

#[test]
fn methods_are_taken_that_are_named() {
    let takes = |directives: &str| {
        let caching = caching(directives);
        [Method::Get, Method::Head, Method::Post, Method::Put].map(|method| caching.takes(method))
    };
    assert_eq!(takes(""), [true, true, false, false]);
    assert_eq!(takes("proxy_cache_methods POST;"), [true, true, true, false]);
    assert_eq!(takes("proxy_cache_methods GET;"), [true, true, false, false]);
    assert_eq!(fault("proxy_cache_methods PUT;"), "invalid value \"PUT\"");
}

#[test]
fn what_is_not_said_is_as_in_nginx() {
    let plain = caching("");
    assert_eq!((plain.min_uses, plain.lock, plain.revalidate), (1, false, false));
    assert_eq!((plain.lock_timeout.0, plain.lock_age.0), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!((plain.background_update, plain.convert_head, plain.max_range_offset), (false, true, None));
    let said = caching(
        "proxy_cache_min_uses 3; proxy_cache_lock on; proxy_cache_lock_timeout 1ms; proxy_cache_lock_age 2ms; \
         proxy_cache_revalidate on; proxy_cache_background_update on; proxy_cache_convert_head off; \
         proxy_cache_max_range_offset 1k; proxy_cache_use_stale error updating;",
    );
    assert_eq!((said.min_uses, said.lock, said.revalidate), (3, true, true));
    assert_eq!((said.lock_timeout.0, said.lock_age.0), (Duration::from_millis(1), Duration::from_millis(2)));
    assert_eq!((said.background_update, said.convert_head), (true, false));
    assert_eq!(said.max_range_offset.map(|offset| offset.0), Some(1024));
    assert!(said.use_stale.has(cases::ERROR) && said.use_stale.has(cases::UPDATING));
    assert!(!said.use_stale.has(cases::TIMEOUT) && !plain.use_stale.has(cases::ERROR));
    for (directives, text) in [
        ("proxy_cache_use_stale x;", "invalid value \"x\""),
        ("proxy_cache_min_uses x;", "\"proxy_cache_min_uses\" directive invalid number"),
        ("proxy_cache_lock on; proxy_cache_lock off;", "\"proxy_cache_lock\" directive is duplicate"),
        ("proxy_cache_lock_age x;", "\"proxy_cache_lock_age\" directive invalid value"),
        ("proxy_cache_max_range_offset x;", "\"proxy_cache_max_range_offset\" directive invalid value"),
        ("fastcgi_cache_convert_head on;", "unknown directive \"fastcgi_cache_convert_head\""),
        ("proxy_cache_purge $uri;", "unknown directive \"proxy_cache_purge\""),
    ] {
        assert_eq!(fault(directives), text);
    }
}
