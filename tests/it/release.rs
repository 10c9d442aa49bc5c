//! What a release says of itself: the bill of materials and the licences are whole, and the same each time.

use std::collections::BTreeSet;
use std::process::Command;

/// What the script writes, or `None` where it cannot run.
fn supply_chain(what: &str) -> Option<String> {
    if Command::new("python3").args(["-c", "import tomllib"]).output().is_ok_and(|o| o.status.success()) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/supply_chain.py");
        let output = Command::new("python3").args([script, what]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return Some(String::from_utf8(output.stdout).unwrap());
    }
    assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "there is no python3 of version 3.11");
    println!("skipped: scripts/supply_chain.py: there is no python3 of version 3.11");
    None
}

#[test]
fn the_bill_of_materials_names_what_is_locked_and_nothing_of_the_tests() {
    let Some(text) = supply_chain("sbom") else { return };
    assert_eq!(Some(&text), supply_chain("sbom").as_ref(), "reproducible");
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "names a path of this machine");
    let bill: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let mut linked = BTreeSet::new();
    for component in bill["components"].as_array().unwrap() {
        let of = |field: &str| component[field].as_str().unwrap().to_string();
        let sum = component["hashes"][0]["content"].as_str().unwrap();
        let locked = format!("name = \"{}\"\nversion = \"{}\"\n", of("name"), of("version"));
        let at = lock.find(&locked).unwrap_or_else(|| panic!("{locked} is not locked"));
        assert!(lock[at..].split("\n\n").next().unwrap().contains(sum), "{locked}");
        assert!(!component["licenses"][0]["expression"].as_str().unwrap().is_empty());
        if of("scope") == "required" {
            linked.insert(of("name"));
        }
    }
    for name in ["rustls", "aws-lc-sys", "tape-sha256", "redb", "globset"] {
        assert!(linked.contains(name), "{name} is missing");
    }
    for name in ["proptest", "criterion", "syn", "cc", "gpb"] {
        assert!(!linked.contains(name), "{name} is not linked");
    }
}

#[test]
fn each_crate_that_is_linked_has_its_licence_text() {
    let Some(text) = supply_chain("licences") else { return };
    assert!(!text.contains("its source has no text"), "{}", &text[..8000.min(text.len())]);
    assert!(
        text.contains("rustls ") && text.contains("Permission is hereby granted") && text.contains("Apache License")
    );
}
