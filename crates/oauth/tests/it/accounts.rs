//! Accounts: renewal, single flight, refusals, and sign-ins during a renewal.

use std::time::Duration;

use http::StatusCode;
use oauth::{Account, AccountError, Config, KeyCheckError, account::TerminalError};
use secrecy::ExposeSecret as _;

use crate::{
    browser::Browser,
    scripted_upstream::ScriptedFailure,
    world::{ALICE, BOB, ISSUER, Tokens, World},
};

async fn account_of(world: &World, tokens: &Tokens) -> Account {
    world.caller(&tokens.access).await.account()
}

async fn current(account: &Account) -> String {
    account
        .valid_token()
        .await
        .unwrap()
        .access_token
        .expose_secret()
        .to_owned()
}

async fn refreshed(account: &Account) -> String {
    account.refresh().await.unwrap().access_token.expose_secret().to_owned()
}

#[tokio::test]
async fn token_is_renewed_before_it_expires() {
    let world = World::new().await;
    let client = world.client().await;
    let account = account_of(&world, &world.tokens(&client, ALICE).await).await;
    world.clock.advance(Duration::from_secs(3600 - 301));
    assert_eq!(current(&account).await, "access-11-1");
    world.clock.advance(Duration::from_secs(1));
    let renewed = account.valid_token().await.unwrap();
    assert_eq!(renewed.access_token.expose_secret(), "access-11-2");
    assert_eq!(current(&account).await, "access-11-2");
    assert_eq!(world.upstream.renewals.arrivals(), 1);
}

#[tokio::test]
async fn short_lived_token_is_renewed_at_half_its_life() {
    let world = World::new().await;
    world.upstream.set_expires_in(Duration::from_secs(20));
    let client = world.client().await;
    let account = account_of(&world, &world.tokens(&client, ALICE).await).await;
    world.clock.advance(Duration::from_secs(9));
    assert_eq!(current(&account).await, "access-11-1");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(current(&account).await, "access-11-2");
}

#[tokio::test]
async fn concurrent_callers_share_one_renewal() {
    let world = World::new().await;
    let client = world.client().await;
    let (one, two) = (world.tokens(&client, ALICE).await, world.tokens(&client, ALICE).await);
    let first = account_of(&world, &one).await;
    let second = account_of(&world, &two).await;
    world.upstream.renewals.hold();
    let outcomes = async { tokio::join!(first.refresh(), second.refresh(), first.refresh(), second.refresh()) };
    let release = async {
        // The others have joined once the one renewal has reached the upstream: all were polled
        // before.
        world.upstream.renewals.arrival(1).await;
        world.upstream.renewals.release();
    };
    let ((a, b, c, d), ()) = tokio::join!(outcomes, release);
    for outcome in [a, b, c, d] {
        assert_eq!(outcome.unwrap().access_token.expose_secret(), "access-11-3");
    }
    assert_eq!(world.upstream.renewals.arrivals(), 1);
}

#[tokio::test]
async fn renewal_continues_after_its_caller_is_dropped() {
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let account = account_of(&world, &tokens).await;
    world.upstream.renewals.hold();
    {
        let mut refresh = std::pin::pin!(account.refresh());
        tokio::select! {
            biased;
            _ = &mut refresh => panic!("the gate holds it"),
            () = world.upstream.renewals.arrival(1) => {}
        }
    }
    world.upstream.renewals.release();
    world.server.finish_sign_ins().await;
    world.restart([7; 32]).await;
    let account = account_of(&world, &tokens).await;
    assert_eq!(current(&account).await, "access-11-2");
    assert_eq!(world.upstream.renewals.arrivals(), 1);
}

#[tokio::test]
async fn sign_in_completes_after_the_browser_disconnects() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&world, &client).await;
    world.upstream.exchanges.hold();
    tokio::select! {
        biased;
        _ = browser.return_from(&world, &to_forgejo, ALICE) => panic!("the gate holds it"),
        () = world.upstream.exchanges.arrival(2) => {}
    }
    world.upstream.exchanges.release();
    world.server.finish_sign_ins().await;
    // The exchange has invalidated the first tokens: the second ones must be stored.
    let account = account_of(&world, &first).await;
    assert_eq!(refreshed(&account).await, "access-11-3");
}

#[tokio::test]
async fn renewed_tokens_survive_a_restart() {
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    account_of(&world, &tokens).await.refresh().await.unwrap();
    world.restart([7; 32]).await;
    let account = account_of(&world, &tokens).await;
    assert_eq!(current(&account).await, "access-11-2");
    // Its refresh token is the valid one.
    assert_eq!(refreshed(&account).await, "access-11-3");
}

#[tokio::test]
async fn terminal_refusal_ends_the_grants_of_the_user() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let account = account_of(&world, &tokens).await;
    world.upstream.set_failure(Some(ScriptedFailure::Refused));
    let error = account.refresh().await.unwrap_err();
    assert!(
        matches!(error, AccountError::Terminal(TerminalError::Refused(_))),
        "{error:?}"
    );
    assert_eq!(world.events.take(), ["user 11"]);
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        world.refresh(&client, &tokens.refresh).await.error(),
        (400, "invalid_grant".to_owned())
    );
    assert!(matches!(
        account.valid_token().await,
        Err(AccountError::Terminal(TerminalError::NoAccount))
    ));
    world.upstream.set_failure(None);
    world.tokens(&client, ALICE).await;
}

#[tokio::test]
async fn transient_failures_and_misconfiguration_end_nothing() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let account = account_of(&world, &tokens).await;
    for failure in [
        ScriptedFailure::Unavailable,
        ScriptedFailure::Misconfigured,
        // Forgejo still accepts the access token.
        ScriptedFailure::Unconfirmed,
    ] {
        world.upstream.set_failure(Some(failure));
        assert!(
            matches!(account.refresh().await, Err(AccountError::Transient(_))),
            "{failure:?}"
        );
        world.clock.advance(Duration::from_secs(10));
    }
    // A token that is about to expire is given out all the same. An expired one is not.
    world.clock.advance(Duration::from_secs(3470));
    assert_eq!(current(&account).await, "access-11-1");
    world.clock.advance(Duration::from_secs(100));
    assert!(matches!(account.valid_token().await, Err(AccountError::Transient(_))));
    world.upstream.set_failure(None);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(current(&account).await, "access-11-2");
    assert!(world.events.take().is_empty());
}

#[tokio::test]
async fn second_sign_in_replaces_the_tokens_of_all_grants() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    world.tokens(&client, ALICE).await;
    let account = account_of(&world, &first).await;
    assert_eq!(current(&account).await, "access-11-2");
    assert_eq!(refreshed(&account).await, "access-11-3");
}

#[tokio::test]
async fn sign_in_during_a_renewal_wins_and_ends_nothing() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let account = account_of(&world, &first).await;
    world.upstream.renewals.hold();
    let sign_in = async {
        world.upstream.renewals.arrival(1).await;
        // Invalidates the refresh token that the renewal is using.
        Browser::default().sign_in(&world, &client, ALICE).await;
        world.upstream.renewals.release();
    };
    let (outcome, ()) = tokio::join!(account.refresh(), sign_in);
    assert_eq!(outcome.unwrap().access_token.expose_secret(), "access-11-2");
    assert!(world.events.take().is_empty());
    world.caller(&first.access).await;
}

#[tokio::test]
async fn sign_in_that_fails_after_the_exchange_keeps_earlier_grants() {
    let mut config = Config::new(ISSUER);
    config.allowed_orgs = vec!["staff".to_owned()];
    let world = World::with(config).await;
    world.upstream.add_member("staff", "alice");
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;

    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&world, &client).await;
    world.upstream.set_members_unavailable(true);
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert_eq!(back.parameter("error").as_deref(), Some("temporarily_unavailable"));

    let account = account_of(&world, &first).await;
    assert_eq!(refreshed(&account).await, "access-11-3");
}

#[tokio::test]
async fn former_member_loses_access_at_the_next_renewal_and_others_notice_nothing() {
    let mut config = Config::new(ISSUER);
    config.allowed_orgs = vec!["staff".to_owned()];
    let world = World::with(config).await;
    for login in ["alice", "bob"] {
        world.upstream.add_member("staff", login);
    }
    let client = world.client().await;
    let (alice, bob) = (world.tokens(&client, ALICE).await, world.tokens(&client, BOB).await);
    world.upstream.remove_member("staff", "alice");
    for tokens in [&alice, &bob] {
        account_of(&world, tokens).await.refresh().await.unwrap();
    }
    world.server.finish_sign_ins().await;
    assert_eq!(world.events.take(), ["user 11"]);
    assert_eq!(
        world.authenticate(&alice.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    world.caller(&bob.access).await;
    world.refresh(&client, &bob.refresh).await.tokens();
}

#[tokio::test]
async fn allow_list_of_users_goes_by_the_login_that_the_user_has_now() {
    let mut config = Config::new(ISSUER);
    config.allowed_users = vec!["alice".to_owned(), "anna".to_owned()];
    let world = World::with(config).await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let account = account_of(&world, &tokens).await;
    world.upstream.rename(ALICE, "anna");
    account.refresh().await.unwrap();
    world.server.finish_sign_ins().await;
    // Another user who takes the old login is another user.
    world.upstream.rename(BOB, "alice");
    let bob = world.tokens(&client, BOB).await;
    assert_ne!(
        world.caller(&bob.access).await.grant(),
        world.caller(&tokens.access).await.grant()
    );
    world.upstream.rename(ALICE, "anne");
    account.refresh().await.unwrap();
    world.server.finish_sign_ins().await;
    assert_eq!(world.events.take(), ["user 11"]);
    world.caller(&bob.access).await;
}

#[tokio::test]
async fn requests_during_an_outage_ask_forgejo_once_a_second() {
    let world = World::new().await;
    let client = world.client().await;
    let alice = account_of(&world, &world.tokens(&client, ALICE).await).await;
    let bob = account_of(&world, &world.tokens(&client, BOB).await).await;
    world.upstream.set_failure(Some(ScriptedFailure::Unavailable));
    world.clock.advance(Duration::from_secs(3600));
    for _ in 0..5 {
        for _ in 0..100 {
            for account in [&alice, &bob] {
                let outcome = account.valid_token().await;
                assert!(matches!(outcome, Err(AccountError::Transient(_))), "{outcome:?}");
            }
        }
        world.clock.advance(Duration::from_secs(1));
    }
    let during = world.upstream.renewals.arrivals();
    assert!((3..=5).contains(&during), "{during} renewals in five seconds");
    world.upstream.set_failure(None);
    world.clock.advance(Duration::from_secs(60));
    alice.valid_token().await.unwrap();
    bob.valid_token().await.unwrap();
}

/// Makes the store refuse to change accounts, as if the disk were full.
async fn break_accounts(world: &World) {
    let fault = "CREATE TRIGGER fault_update BEFORE UPDATE ON oauth_accounts BEGIN SELECT RAISE(ABORT, 'fault'); END;
                 CREATE TRIGGER fault_insert BEFORE INSERT ON oauth_accounts BEGIN SELECT RAISE(ABORT, 'fault'); END";
    sqlx::raw_sql(fault).execute(world.store.writer()).await.unwrap();
}

async fn repair_accounts(world: &World) {
    let repair = "DROP TRIGGER fault_update; DROP TRIGGER fault_insert";
    sqlx::raw_sql(repair).execute(world.store.writer()).await.unwrap();
}

/// Names the pair in the store.
async fn version(world: &World) -> i64 {
    let query = sqlx::query_scalar("SELECT version FROM oauth_accounts");
    query.fetch_one(world.store.readers()).await.unwrap()
}

#[tokio::test]
async fn renewed_tokens_are_used_from_memory_while_the_store_fails_and_stored_later() {
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let account = account_of(&world, &tokens).await;
    break_accounts(&world).await;
    assert_eq!(refreshed(&account).await, "access-11-2");
    assert_eq!(current(&account).await, "access-11-2", "it is served from memory");
    // The renewed pair is renewed in turn, although the store has the first one.
    assert_eq!(refreshed(&account).await, "access-11-3");
    repair_accounts(&world).await;
    world.server.finish_sign_ins().await;
    world.restart([7; 32]).await;
    let account = account_of(&world, &tokens).await;
    assert_eq!(current(&account).await, "access-11-3");
    assert_eq!(refreshed(&account).await, "access-11-4");
}

#[tokio::test]
async fn pair_that_is_stored_during_the_next_renewal_is_replaced_by_it() {
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let account = account_of(&world, &tokens).await;
    break_accounts(&world).await;
    assert_eq!(refreshed(&account).await, "access-11-2");
    world.upstream.renewals.hold();
    let store_recovers = async {
        world.upstream.renewals.arrival(2).await;
        let before = version(&world).await;
        repair_accounts(&world).await;
        // The store has the second pair before the upstream issues the third.
        while version(&world).await == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.upstream.renewals.release();
    };
    let (renewed, ()) = tokio::join!(refreshed(&account), store_recovers);
    assert_eq!(renewed, "access-11-3");
    world.server.finish_sign_ins().await;
    world.restart([7; 32]).await;
    let account = account_of(&world, &tokens).await;
    assert_eq!(refreshed(&account).await, "access-11-4");
}

#[tokio::test]
async fn sign_in_waits_for_the_store() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    break_accounts(&world).await;
    let second = world.tokens(&client, ALICE);
    let repair = async {
        world.upstream.exchanges.arrival(2).await;
        repair_accounts(&world).await;
    };
    tokio::join!(second, repair);
    let account = account_of(&world, &first).await;
    assert_eq!(refreshed(&account).await, "access-11-3");
}

#[tokio::test]
async fn sign_in_waits_for_the_answer_who_the_user_is() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    world.upstream.set_user_unavailable(true);
    let second = world.tokens(&client, ALICE);
    let repair = async {
        world.upstream.exchanges.arrival(2).await;
        world.upstream.set_user_unavailable(false);
    };
    tokio::join!(second, repair);
    let account = account_of(&world, &first).await;
    assert_eq!(refreshed(&account).await, "access-11-3");
}

#[tokio::test]
async fn user_locked_out_at_forgejo_loses_access_at_the_next_renewal() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    // Forgejo still renews the tokens of such a user.
    world.upstream.deactivate(ALICE);
    world.clock.advance(Duration::from_secs(3600 - 300));
    let account = account_of(&world, &tokens).await;
    // Nothing waits for the lookup of the user, which may hang.
    account.valid_token().await.unwrap();
    world.server.finish_sign_ins().await;
    assert_eq!(world.events.take(), ["user 11"]);
    assert_eq!(
        world.refresh(&client, &tokens.refresh).await.error(),
        (400, "invalid_grant".to_owned())
    );
}

#[tokio::test]
async fn valid_tokens_of_two_concurrent_sign_ins_are_kept() {
    let world = World::new().await;
    let client = world.client().await;
    let (mut one, mut two) = (Browser::default(), Browser::default());
    let (to_one, to_two) = (one.approve(&world, &client).await, two.approve(&world, &client).await);
    world.upstream.exchanges.hold();
    let release = async {
        world.upstream.exchanges.arrival(2).await;
        world.upstream.exchanges.release();
    };
    let (a, b, ()) = tokio::join!(
        one.return_from(&world, &to_one, ALICE),
        two.return_from(&world, &to_two, ALICE),
        release
    );
    let tokens = world.exchange(&client, &a.parameter("code").unwrap()).await.tokens();
    world.exchange(&client, &b.parameter("code").unwrap()).await.tokens();
    // In either order, the stored refresh token is the valid one.
    let account = account_of(&world, &tokens).await;
    account.refresh().await.unwrap();
    assert!(world.events.take().is_empty());
}

#[tokio::test]
async fn hanging_sign_in_does_not_delay_other_users() {
    let world = World::new().await;
    let client = world.client().await;
    let mut hangs = Browser::default();
    let to_forgejo = hangs.approve(&world, &client).await;
    world.upstream.exchanges.hold();
    let hanging = hangs.return_from(&world, &to_forgejo, ALICE);
    let other = async {
        world.upstream.exchanges.arrival(1).await;
        let mut browser = Browser::default();
        let to_forgejo = browser.approve(&world, &client).await;
        let back = browser.return_from(&world, &to_forgejo, BOB);
        let reached = async {
            world.upstream.exchanges.arrival(2).await;
            world.upstream.exchanges.release();
        };
        tokio::join!(back, reached).0
    };
    let (a, b) = tokio::join!(hanging, other);
    assert!(a.parameter("code").is_some() && b.parameter("code").is_some());
}

#[tokio::test]
async fn old_key_can_be_removed_after_resealing() {
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let both = [(1, [7; 32]), (2, [9; 32])];
    world.restart_with_keys(&both).await;
    assert_eq!(world.server.reseal_accounts().await.unwrap(), 1);
    assert_eq!(
        world.server.reseal_accounts().await.unwrap(),
        0,
        "each account is resealed once"
    );
    world.restart_with_keys(&both[1..]).await;
    let account = account_of(&world, &tokens).await;
    assert_eq!(refreshed(&account).await, "access-11-2");
    assert!(world.events.take().is_empty());
}

#[tokio::test]
async fn accounts_of_a_missing_key_are_kept_until_it_returns() {
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    world.restart_with_keys(&[(2, [9; 32])]).await;
    assert_eq!(world.server.reseal_accounts().await.unwrap(), 0);
    let account = account_of(&world, &tokens).await;
    let error = account.refresh().await.unwrap_err();
    assert!(matches!(error, AccountError::Transient(_)), "{error:?}");
    world.restart([7; 32]).await;
    let account = account_of(&world, &tokens).await;
    account.refresh().await.unwrap();
}

#[tokio::test]
async fn key_may_change_while_nothing_is_sealed_with_it() {
    let mut world = World::new().await;
    world.server.check_keys().await.unwrap();
    world.restart([8; 32]).await;
    world.server.check_keys().await.unwrap();
    let client = world.client().await;
    world.tokens(&client, ALICE).await;
    world.restart([7; 32]).await;
    let error = world.server.check_keys().await.unwrap_err();
    assert!(matches!(error, KeyCheckError::WrongKey(1)), "{error:?}");
    world.restart([8; 32]).await;
    world.server.check_keys().await.unwrap();
}

#[tokio::test]
async fn database_without_its_key_yields_no_upstream_token() {
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    world.store.close().await;
    let mut found = false;
    for entry in std::fs::read_dir(world.database().parent().unwrap()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        found |= has("alice");
        for secret in ["access-11-1", "refresh-11-1", &tokens.access, &tokens.refresh] {
            assert!(!has(secret), "{secret} is in the file");
        }
    }
    assert!(found, "the files looked at are the database");

    world.restart([8; 32]).await;
    // A database of an earlier version has no values that check keys.
    let error = world.server.check_keys().await.unwrap_err();
    assert!(matches!(error, KeyCheckError::WrongKey(1)), "{error:?}");
    let account = account_of(&world, &tokens).await;
    let error = account.valid_token().await.unwrap_err();
    assert!(matches!(error, AccountError::Transient(_)), "{error:?}");
    assert_eq!(world.upstream.renewals.arrivals(), 0);
    // A key that is wrong by mistake ends no user.
    world.restart([7; 32]).await;
    let account = account_of(&world, &tokens).await;
    assert_eq!(current(&account).await, "access-11-1");
}
