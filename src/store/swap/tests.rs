use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use super::*;
use crate::store::inspect::state_at;

/// Two names on the disk. Another program saves its file just before one of the calls.
struct Disturbed {
    dir: PathBuf,
    /// How many calls are left before each save.
    saves: Cell<Vec<u32>>,
    /// Calls that the file system lacks.
    lacks: &'static [&'static str],
    /// Calls that fail, and after how many that do not.
    fails: Cell<&'static [(&'static str, u32)]>,
    calls: Cell<u32>,
}

impl Disturbed {
    fn new(dir: &Path, saves: &[u32], lacks: &'static [&'static str]) -> Self {
        fs::write(dir.join("own"), "new").unwrap();
        fs::write(dir.join("f"), "old").unwrap();
        Disturbed {
            dir: dir.into(),
            saves: Cell::new(saves.to_vec()),
            lacks,
            fails: Cell::default(),
            calls: Cell::default(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Another program saves as editors do: a new file takes the name of the old one.
    fn before(&self, call: &str) -> io::Result<()> {
        let mut saves = self.saves.take();
        let due = saves.iter().filter(|left| **left == 0).count();
        saves = saves.into_iter().filter(|left| *left > 0).map(|left| left - 1).collect();
        let number = 2 - saves.len();
        self.saves.set(saves);
        if due > 0 {
            fs::write(self.at("saving"), format!("saved {number}")).unwrap();
            fs::rename(self.at("saving"), self.at("f")).unwrap();
        }
        self.fail(call)?;
        if self.lacks.contains(&call) { Err(Errno::INVAL.into()) } else { Ok(()) }
    }

    fn fail(&self, call: &str) -> io::Result<()> {
        let due = self.fails.get().iter().find(|(failing, _)| *failing == call);
        let Some((_, after)) = due else { return Ok(()) };
        let before = self.calls.get();
        self.calls.set(before + 1);
        if before >= *after { Err(Errno::IO.into()) } else { Ok(()) }
    }

    fn state(&self, name: &str) -> Option<PlacedState> {
        state_at(CWD, self.at(name).to_str().unwrap()).map(|(_, state)| state)
    }

    fn content(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(name)).ok()
    }
}

impl SwapNames for Disturbed {
    fn exchange(&self) -> io::Result<()> {
        self.before("exchange")?;
        Ok(rustix::fs::renameat_with(CWD, self.at("own"), CWD, self.at("f"), rustix::fs::RenameFlags::EXCHANGE)?)
    }

    fn rename(&self) -> io::Result<()> {
        fs::rename(self.at("own"), self.at("f"))
    }

    fn move_in(&self) -> io::Result<()> {
        self.before("move_in")?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(CWD, self.at("own"), CWD, self.at("f"), flags)?)
    }

    fn link(&self, kept: &str) -> io::Result<()> {
        self.before("link")?;
        fs::hard_link(self.at("f"), self.at(kept))
    }

    fn move_out(&self) -> io::Result<()> {
        self.before("move_out")?;
        fs::remove_file(self.at("own"))?;
        fs::rename(self.at("f"), self.at("own"))
    }

    fn keep_own(&self, kept: &str) -> io::Result<()> {
        self.fail("keep_own")?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(CWD, self.at("own"), CWD, self.at(kept), flags)?)
    }

    fn set_aside(&self) -> io::Result<String> {
        fs::rename(self.at("own"), self.at("own.saved"))?;
        Ok("own.saved".into())
    }

    fn move_away(&self, kept: &str) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(CWD, self.at("f"), CWD, self.at(kept), flags)?)
    }

    fn move_back(&self, kept: &str) -> io::Result<()> {
        fs::rename(self.at(kept), self.at("f"))
    }

    fn remove_own(&self) -> io::Result<()> {
        fs::remove_file(self.at("own"))
    }

    fn remove_kept(&self, kept: &str) -> io::Result<()> {
        fs::remove_file(self.at(kept))
    }

    fn own_state(&self) -> Option<PlacedState> {
        self.state("own")
    }

    fn final_state(&self) -> Option<PlacedState> {
        self.state("f")
    }

    fn kept_state(&self, kept: &str) -> Option<PlacedState> {
        self.state(kept)
    }

    fn name(&self) -> &str {
        "f"
    }
}

type Content<'a> = Option<&'a str>;

/// What came of it, and what lies at the final name, at the own one, and at the kept one.
fn check(names: &Disturbed, keeps: bool, swapped: Option<Swapped>, [name, own, kept]: [Content<'_>; 3]) {
    let found = names.final_state().unwrap();
    let result = if keeps { replace_and_keep(names, &found) } else { replace(names, &found) };
    assert_eq!(result.ok(), swapped);
    let found = ["f", "own", "f~"].map(|name| names.content(name));
    assert_eq!(found.each_ref().map(Option::as_deref), [name, own, kept]);
}

/// A file that was saved between the look and the rename was replaced.
#[test]
fn what_is_saved_just_before_the_replacement_is_put_back() {
    let (done, changed) = (Some(Swapped::Done), Some(Swapped::Changed));
    let on = |saves: &[u32], keeps, swapped, contents| {
        let dir = tempfile::tempdir().unwrap();
        check(&Disturbed::new(dir.path(), saves, &[]), keeps, swapped, contents);
    };
    on(&[], false, done, [Some("new"), None, None]);
    on(&[], true, done, [Some("new"), None, Some("old")]);
    on(&[0], false, changed, [Some("saved 2"), Some("new"), None]);
    // Just before the link, and just before the exchange.
    on(&[0], true, changed, [Some("saved 2"), Some("new"), None]);
    on(&[1], true, changed, [Some("saved 2"), Some("new"), None]);
    // A second save, over the new file, before it is put back: the last one that was saved stays.
    on(&[0, 1], false, None, [Some("saved 2"), None, None]);
}

#[test]
fn a_file_system_that_lacks_a_call_has_it_done_in_the_old_way() {
    for (keeps, lacks) in
        [(false, &["exchange"][..]), (true, &["exchange"]), (true, &["link"]), (true, &["link", "exchange"])]
    {
        let dir = tempfile::tempdir().unwrap();
        let kept = keeps.then_some("old");
        let names = Disturbed::new(dir.path(), &[], lacks);
        check(&names, keeps, Some(Swapped::Done), [Some("new"), None, kept]);
    }
}

#[test]
fn a_kept_file_takes_no_name_of_another() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f~"), "kept before").unwrap();
    check(&Disturbed::new(dir.path(), &[], &[]), true, Some(Swapped::Done), [Some("new"), None, Some("kept before")]);
    assert_eq!(fs::read_to_string(dir.path().join("f.~2~")).unwrap(), "old");
}

#[test]
fn what_is_saved_just_before_the_removal_is_put_back() {
    for (saves, swapped, contents) in [
        (&[][..], Swapped::Done, [None, None, None]),
        (&[0], Swapped::Changed, [Some("saved 2"), None, None]),
        // A second save, before it is put back.
        (&[0, 1], Swapped::Changed, [Some("saved 2"), None, Some("saved 1")]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let names = Disturbed::new(dir.path(), saves, &[]);
        let found = names.final_state().unwrap();
        assert_eq!(remove(&names, &found).unwrap(), swapped);
        let found = ["f", "own", "f~"].map(|name| names.content(name));
        assert_eq!(found.each_ref().map(Option::as_deref), contents);
    }
}

/// What was saved lies at the own name then, which is removed after an error.
#[test]
fn what_cannot_be_put_back_gets_a_name_that_stays() {
    type Act = fn(&Disturbed, &PlacedState) -> io::Result<Swapped>;
    type Fails = &'static [(&'static str, u32)];
    let acts: [(Act, &str, &[u32], Fails, Fails); 4] = [
        (replace, "f~", &[0], &[("exchange", 1)], &[("exchange", 1), ("keep_own", 0)]),
        (replace, "f~", &[0, 1], &[("exchange", 2)], &[("exchange", 2), ("keep_own", 0)]),
        (replace_and_keep, "f.~2~", &[1], &[("exchange", 1)], &[("exchange", 1), ("keep_own", 0)]),
        (remove, "f~", &[0], &[("move_in", 0)], &[("move_in", 0), ("keep_own", 0)]),
    ];
    for (act, beside, saves, fails, fails_beside) in acts {
        for (fails, kept) in [(fails, beside), (fails_beside, "own.saved")] {
            let dir = tempfile::tempdir().unwrap();
            let names = Disturbed::new(dir.path(), saves, &[]);
            names.fails.set(fails);
            let error = act(&names, &names.final_state().unwrap()).unwrap_err().to_string();
            assert!(error.contains(&format!("is now {kept}")), "{error}");
            assert!(names.content(kept).unwrap().starts_with("saved "), "{kept}");
            assert_eq!(names.content("own"), None);
        }
    }
}

/// Cause: `~` behind a name of 255 bytes makes one that no file system takes. Effect: such a file was fetched, and each run with
/// `--backup` ended with "File name too long; check the disk". Mend: the name under which the old one is kept is cut.
#[test]
fn the_name_under_which_a_file_is_kept_fits_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let make = |kept: &str| fs::File::create_new(dir.path().join(kept)).map(drop);
    let long = "n".repeat(PATH_COMPONENT_LEN_MAX);
    assert_eq!(first_free(&long, make).unwrap(), format!("{}~", &long[1..]));
    assert_eq!(first_free(&long, make).unwrap(), format!("{}.~2~", &long[4..]));
    assert_eq!(first_free(&format!("{}é", &long[2..]), make).unwrap(), format!("{}~", &long[2..]));
    assert_eq!(first_free("short", make).unwrap(), "short~");
    // A file system with shorter names.
    let encrypted = |kept: &str| match kept.rsplit('/').next().unwrap().len() {
        ..=ENCRYPTED_NAME_LEN_MAX => Ok(()),
        _ => Err(Errno::NAMETOOLONG.into()),
    };
    assert_eq!(
        first_free(&format!("d/{long}"), encrypted).unwrap(),
        format!("d/{}~", &long[..ENCRYPTED_NAME_LEN_MAX - 1])
    );
}
