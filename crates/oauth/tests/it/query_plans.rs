//! The query plans of all statements: none reads a whole table that grows.

use std::{fs, path::Path};

use sqlx::Row as _;

use crate::world::World;

/// Statements that read a whole table: one with a handful of rows (keys, running exchanges and
/// renewals), or all accounts, at the start and each hour.
const WHOLE_TABLES: [&str; 5] = [
    "SELECT number, hmac FROM oauth_key_checks",
    "DELETE FROM oauth_exchanges WHERE expires_at",
    "DELETE FROM oauth_leases WHERE expires_at",
    "SELECT user_id FROM oauth_accounts ORDER",
    "DELETE FROM oauth_accounts WHERE user_id NOT IN",
];

#[tokio::test]
async fn no_statement_reads_a_whole_table() {
    let world = World::new().await;
    let mut statements = Vec::new();
    collect(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/sqlite")),
        &mut statements,
    );
    assert!(statements.len() > 30, "only {} statements were found", statements.len());
    let mut scans = Vec::new();
    for statement in statements {
        let explained = format!("EXPLAIN QUERY PLAN {statement}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(explained))
            .fetch_all(world.store.readers())
            .await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}: {statement}"));
        for row in rows {
            let step: String = row.get("detail");
            let reads_all = step.starts_with("SCAN oauth_") && !step.contains("USING");
            if reads_all && !WHOLE_TABLES.iter().any(|known| statement.starts_with(known)) {
                scans.push(format!("{step}: {statement}"));
            }
        }
    }
    assert!(scans.is_empty(), "{}", scans.join("\n\n"));
}

/// The statements in the string literals of the sources below a folder.
fn collect(folder: &Path, statements: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, statements);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let literals = text.split('"').skip(1).step_by(2);
            let is_statement = |literal: &&str| {
                let first = literal.split_whitespace().next();
                matches!(first, Some("SELECT" | "INSERT" | "UPDATE" | "DELETE")) && literal.contains("oauth_")
            };
            statements.extend(literals.filter(is_statement).map(str::to_owned));
        }
    }
}
