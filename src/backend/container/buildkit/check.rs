//! `build --check`: the frontend is asked for its findings in place of an image, and no instruction is run
//! (moby/buildkit: `frontend/subrequests/lint`). Such a question is not part of a build, so an empty build is
//! begun, the question is asked of its bridge to the frontends, and the build is brought to its end.

use std::collections::BTreeMap;

use super::grpc::{Caller, Status};
use super::proto::{
    BridgeRequest, BridgeResponse, BridgeResult, BridgeReturn, SolveRequest, SolveResponse,
};

const BRIDGE_SOLVE: &str = "/moby.buildkit.v1.frontend.LLBBridge/Solve";
const BRIDGE_RETURN: &str = "/moby.buildkit.v1.frontend.LLBBridge/Return";

/// Names the build that a call to the bridge belongs to.
const BUILD: &str = "buildkit-controlapi-buildid";

/// What the frontend is asked for.
const LINT: &str = "frontend.lint";

/// What a frontend found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Findings {
    /// As the frontend words them.
    pub text: String,
    /// Whether there are any.
    pub any: bool,
}

/// Asks for the findings about what `solve` would build. `None`: the frontend has no checks.
pub(super) async fn findings(
    caller: &Caller,
    solve: &SolveRequest,
) -> Result<Option<Findings>, Status> {
    let empty = SolveRequest {
        build: solve.build.clone(),
        session: solve.session.clone(),
        entitlements: solve.entitlements.clone(),
        ..SolveRequest::default()
    };
    let building = async {
        let mut answers = caller.call(super::SOLVE, &empty).await?;
        while answers.next::<SolveResponse>().await?.is_some() {}
        Ok::<(), Status>(())
    };
    let asking = async {
        let outcome = ask(caller, solve).await;
        // An empty result: nothing is exported.
        let ends = BridgeReturn {
            result: Some(BridgeResult::default()),
        };
        let mut answers = caller
            .call_within(BRIDGE_RETURN, &[(BUILD, &solve.build)], &ends)
            .await?;
        while answers.next::<BridgeReturn>().await?.is_some() {}
        outcome
    };
    let (built, asked) = tokio::join!(building, asking);
    // Where there is no build, its bridge is only said to be missing.
    built?;
    asked
}

async fn ask(caller: &Caller, solve: &SolveRequest) -> Result<Option<Findings>, Status> {
    let mut options = solve.frontend_attrs.clone();
    options.insert("requestid".to_owned(), LINT.to_owned());
    // A frontend that `# syntax=` names is asked through the one that is built in.
    let forwards = "moby.buildkit.frontend.subrequests+forward";
    options.insert("frontend.caps".to_owned(), forwards.to_owned());
    let request = BridgeRequest {
        frontend: solve.frontend.clone(),
        options,
        returns_result: true,
    };
    let headers = [(BUILD, solve.build.as_str())];
    let mut found = BTreeMap::new();
    let mut answers = match caller.call_within(BRIDGE_SOLVE, &headers, &request).await {
        Ok(answers) => answers,
        Err(status) => return unless_unknown(status),
    };
    loop {
        match answers.next::<BridgeResponse>().await {
            Ok(Some(answer)) => found.extend(answer.result.unwrap_or_default().metadata),
            Ok(None) => return Ok(read(&found)),
            Err(status) => return unless_unknown(status),
        }
    }
}

/// A frontend of before the checks says that it does not know the question.
fn unless_unknown(status: Status) -> Result<Option<Findings>, Status> {
    if status.message.contains("unsupported request") {
        return Ok(None);
    }
    Err(status)
}

fn read(found: &BTreeMap<String, Vec<u8>>) -> Option<Findings> {
    let entry = |key: &str| Some(String::from_utf8_lossy(found.get(key)?).into_owned());
    let mut text = entry("result.txt")?;
    // What keeps the file from being read is not among the findings.
    let details: serde_json::Value =
        serde_json::from_str(&entry("result.json").unwrap_or_default()).unwrap_or_default();
    if let Some(error) = details["buildError"]["message"].as_str() {
        text.push_str(error);
    }
    Some(Findings {
        text,
        any: entry("result.statuscode").is_some_and(|code| code.trim() != "0"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        let entry = |(key, value): &(&str, &str)| ((*key).to_owned(), value.as_bytes().to_vec());
        entries.iter().map(entry).collect()
    }

    #[test]
    fn findings_are_told_from_none_and_from_no_checks() {
        let found = metadata(&[("result.txt", "WARNING: x\n"), ("result.statuscode", "1")]);
        assert!(read(&found).unwrap().any);
        let clean = metadata(&[("result.txt", ""), ("result.statuscode", "0")]);
        assert!(!read(&clean).unwrap().any);
        assert!(!read(&metadata(&[("result.txt", "")])).unwrap().any);
        let broken = metadata(&[
            ("result.txt", ""),
            (
                "result.json",
                r#"{"buildError": {"message": "unknown instruction: COPYY"}}"#,
            ),
            ("result.statuscode", "1"),
        ]);
        assert_eq!(read(&broken).unwrap().text, "unknown instruction: COPYY");
        assert_eq!(read(&metadata(&[("containerimage.config", "{}")])), None);
    }

    #[test]
    fn an_older_frontend_is_told_from_a_failure() {
        let unknown = Status::new(2, "unsupported request frontend.lint");
        assert_eq!(unless_unknown(unknown), Ok(None));
        assert!(unless_unknown(Status::new(2, "no such file")).is_err());
    }
}
