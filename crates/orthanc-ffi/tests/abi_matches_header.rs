//! Compares every declaration of `abi` with the real headers: a C program prints the compiler's values.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use orthanc_ffi::abi::{self, change_type, http_method, job_step, job_stop, service};
use orthanc_ffi::{ErrorCode, OrthancVersion};

const HEADER: &str = "usr/include/orthanc/OrthancCPlugin.h";

/// C expressions with their values in Rust.
#[derive(Default)]
struct Facts(BTreeMap<String, i64>);

impl Facts {
    fn add(&mut self, expression: impl Into<String>, value: impl TryInto<i64>) {
        let expression = expression.into();
        let value = value.try_into().unwrap_or_else(|_| panic!("{expression} is not an i64"));
        assert_eq!(self.0.insert(expression.clone(), value), None, "{expression} is listed twice");
    }
}

/// Size and offsets of a struct: `structure!(facts, CName, RustName { c_field: rust_field, … })`.
macro_rules! structure {
    ($facts:ident, $c:ident, $rust:ident { $($c_field:ident: $rust_field:ident),+ $(,)? }) => {
        $facts.add(concat!("sizeof(", stringify!($c), ")"), size_of::<abi::$rust>());
        $($facts.add(
            concat!("offsetof(", stringify!($c), ", ", stringify!($c_field), ")"),
            offset_of!(abi::$rust, $rust_field),
        );)+
        // A pattern without `..` fails to compile unless every field is listed.
        let _ = |value: abi::$rust| { let abi::$rust { $($rust_field: _),+ } = value; };
    };
}

fn constants(facts: &mut Facts) {
    for (name, value) in ErrorCode::NAMED {
        facts.add(format!("OrthancPluginErrorCode_{name}"), *value);
    }
    let services = [
        ("LogInfo", service::LOG_INFO),
        ("LogWarning", service::LOG_WARNING),
        ("LogError", service::LOG_ERROR),
        ("GetConfigurationPath", service::GET_CONFIGURATION_PATH),
        ("SetPluginProperty", service::SET_PLUGIN_PROPERTY),
        ("GetGlobalProperty", service::GET_GLOBAL_PROPERTY),
        ("SetGlobalProperty", service::SET_GLOBAL_PROPERTY),
        ("SetMetricsValue", service::SET_METRICS_VALUE),
        ("RegisterRefreshMetricsCallback", service::REGISTER_REFRESH_METRICS_CALLBACK),
        ("GetConfiguration", service::GET_CONFIGURATION),
        ("CreateMemoryBuffer64", service::CREATE_MEMORY_BUFFER_64),
        ("RegisterStorageArea", service::REGISTER_STORAGE_AREA),
        ("RegisterOnChangeCallback", service::REGISTER_ON_CHANGE_CALLBACK),
        ("RegisterRestCallbackNoLock", service::REGISTER_REST_CALLBACK_NO_LOCK),
        ("RegisterChunkedRestCallback", service::REGISTER_CHUNKED_REST_CALLBACK),
        ("RegisterStorageArea2", service::REGISTER_STORAGE_AREA_2),
        ("AnswerBuffer", service::ANSWER_BUFFER),
        ("SendMethodNotAllowed", service::SEND_METHOD_NOT_ALLOWED),
        ("SetHttpHeader", service::SET_HTTP_HEADER),
        ("SendHttpStatus", service::SEND_HTTP_STATUS),
        ("SetHttpErrorDetails", service::SET_HTTP_ERROR_DETAILS),
        ("RestApiGet", service::REST_API_GET),
        ("RestApiPost", service::REST_API_POST),
        ("CreateJob", service::CREATE_JOB),
        ("FreeJob", service::FREE_JOB),
        ("SubmitJob", service::SUBMIT_JOB),
        ("RegisterJobsUnserializer", service::REGISTER_JOBS_UNSERIALIZER),
    ];
    for (name, value) in services {
        facts.add(format!("_OrthancPluginService_{name}"), value);
    }
    let others = [
        ("OrthancPluginHttpMethod_Get", http_method::GET),
        ("OrthancPluginHttpMethod_Post", http_method::POST),
        ("OrthancPluginHttpMethod_Put", http_method::PUT),
        ("OrthancPluginHttpMethod_Delete", http_method::DELETE),
        ("OrthancPluginChangeType_OrthancStopped", change_type::ORTHANC_STOPPED),
        ("OrthancPluginJobStepStatus_Success", job_step::SUCCESS),
        ("OrthancPluginJobStepStatus_Failure", job_step::FAILURE),
        ("OrthancPluginJobStepStatus_Continue", job_step::CONTINUE),
        ("OrthancPluginJobStopReason_Success", job_stop::SUCCESS),
        ("OrthancPluginJobStopReason_Paused", job_stop::PAUSED),
        ("OrthancPluginJobStopReason_Failure", job_stop::FAILURE),
        ("OrthancPluginJobStopReason_Canceled", job_stop::CANCELED),
        ("OrthancPluginContentType_Unknown", orthanc_ffi::ContentType::UNKNOWN.as_raw()),
        ("OrthancPluginContentType_Dicom", orthanc_ffi::ContentType::DICOM.as_raw()),
        ("OrthancPluginContentType_DicomAsJson", orthanc_ffi::ContentType::DICOM_AS_JSON.as_raw()),
        (
            "OrthancPluginContentType_DicomUntilPixelData",
            orthanc_ffi::ContentType::DICOM_UNTIL_PIXEL_DATA.as_raw(),
        ),
        ("_OrthancPluginProperty_Description", abi::PROPERTY_DESCRIPTION),
        ("_OrthancPluginProperty_RootUri", abi::PROPERTY_ROOT_URI),
        ("_OrthancPluginProperty_OrthancExplorer", abi::PROPERTY_ORTHANC_EXPLORER),
        ("OrthancPluginMetricsType_Default", abi::METRICS_DEFAULT),
    ];
    for (name, value) in others {
        facts.add(name, value);
    }
    // Every enumeration that is an `i32` in Rust.
    for name in [
        "OrthancPluginErrorCode",
        "OrthancPluginHttpMethod",
        "OrthancPluginChangeType",
        "OrthancPluginResourceType",
        "OrthancPluginContentType",
        "OrthancPluginJobStepStatus",
        "OrthancPluginJobStopReason",
        "OrthancPluginMetricsType",
        "_OrthancPluginService",
        "_OrthancPluginProperty",
        "int",
    ] {
        facts.add(format!("sizeof({name})"), size_of::<i32>());
    }
}

fn structures(facts: &mut Facts) {
    structure!(
        facts,
        OrthancPluginContext,
        Context {
            pluginsManager: plugins_manager,
            orthancVersion: orthanc_version,
            Free: free,
            InvokeService: invoke_service,
        }
    );
    structure!(facts, OrthancPluginMemoryBuffer, MemoryBuffer { data: data, size: size });
    structure!(facts, OrthancPluginMemoryBuffer64, MemoryBuffer64 { data: data, size: size });
    structure!(
        facts,
        OrthancPluginHttpRequest,
        HttpRequest {
            method: method,
            groupsCount: groups_count,
            groups: groups,
            getCount: get_count,
            getKeys: get_keys,
            getValues: get_values,
            body: body,
            bodySize: body_size,
            headersCount: headers_count,
            headersKeys: headers_keys,
            headersValues: headers_values,
        }
    );
    structure!(
        facts,
        _OrthancPluginSetPluginProperty,
        SetPluginProperty { plugin: plugin, property: property, value: value }
    );
    structure!(
        facts,
        _OrthancPluginGlobalProperty,
        GlobalProperty { result: result, property: property, value: value }
    );
    structure!(
        facts,
        _OrthancPluginRetrieveDynamicString,
        RetrieveDynamicString { result: result, argument: argument }
    );
    structure!(
        facts,
        _OrthancPluginCreateMemoryBuffer64,
        CreateMemoryBuffer64 { target: target, size: size }
    );
    structure!(
        facts,
        _OrthancPluginRegisterStorageArea,
        RegisterStorageArea { create: create, read: read, remove: remove, free: free }
    );
    structure!(
        facts,
        _OrthancPluginRegisterStorageArea2,
        RegisterStorageArea2 { create: create, readWhole: read_whole, readRange: read_range, remove: remove }
    );
    structure!(
        facts,
        _OrthancPluginRestCallback,
        RestCallbackRegistration { pathRegularExpression: path_regular_expression, callback: callback }
    );
    structure!(
        facts,
        _OrthancPluginChunkedRestCallback,
        ChunkedRestCallback {
            pathRegularExpression: path_regular_expression,
            getHandler: get_handler,
            postHandler: post_handler,
            deleteHandler: delete_handler,
            putHandler: put_handler,
            addChunk: add_chunk,
            execute: execute,
            finalize: finalize,
        }
    );
    structure!(facts, _OrthancPluginSetHttpHeader, SetHttpHeader { output: output, key: key, value: value });
    structure!(
        facts,
        _OrthancPluginAnswerBuffer,
        AnswerBuffer { output: output, answer: answer, answerSize: answer_size, mimeType: mime_type }
    );
    structure!(
        facts,
        _OrthancPluginOutputPlusArgument,
        OutputPlusArgument { output: output, argument: argument }
    );
    structure!(
        facts,
        _OrthancPluginSendHttpStatus,
        SendHttpStatus { output: output, status: status, body: body, bodySize: body_size }
    );
    structure!(
        facts,
        _OrthancPluginSetHttpErrorDetails,
        SetHttpErrorDetails { output: output, details: details, log: log }
    );
    structure!(facts, _OrthancPluginRestApiGet, RestApiGet { target: target, uri: uri });
    structure!(
        facts,
        _OrthancPluginRestApiPostPut,
        RestApiPost { target: target, uri: uri, body: body, bodySize: body_size }
    );
    structure!(facts, _OrthancPluginCreateJob, CreateJob {
        target: target,
        job: job,
        finalize: finalize,
        type: kind,
        getProgress: get_progress,
        getContent: get_content,
        getSerialized: get_serialized,
        step: step,
        stop: stop,
        reset: reset,
    });
    structure!(
        facts,
        _OrthancPluginSetMetricsValue,
        SetMetricsValue { name: name, value: value, type: kind }
    );
    structure!(facts, _OrthancPluginRegisterRefreshMetricsCallback, RegisterMetrics { callback: callback });
    structure!(facts, _OrthancPluginFreeJob, FreeJob { job: job });
    structure!(
        facts,
        _OrthancPluginSubmitJob,
        SubmitJob { resultId: result_id, job: job, priority: priority }
    );
    structure!(facts, _OrthancPluginOnChangeCallback, RegisterOnChange { callback: callback });
    structure!(
        facts,
        _OrthancPluginJobsUnserializer,
        RegisterJobsUnserializer { unserializer: unserializer }
    );
}

/// What the oldest header does not have, up to a version.
fn newer(facts: &mut Facts, version: OrthancVersion) {
    if version >= OrthancVersion::new(1, 12, 4) {
        facts.add("_OrthancPluginService_SetMetricsIntegerValue", service::SET_METRICS_INTEGER_VALUE);
        facts.add("_OrthancPluginService_SetCurrentThreadName", service::SET_CURRENT_THREAD_NAME);
        facts.add("_OrthancPluginService_LogMessage", service::LOG_MESSAGE);
        facts.add("OrthancPluginLogCategory_Generic", abi::LOG_CATEGORY_GENERIC);
        for (name, level) in [("Error", 0), ("Warning", 1), ("Info", 2)] {
            facts.add(format!("OrthancPluginLogLevel_{name}"), level);
        }
        structure!(
            facts,
            _OrthancPluginSetMetricsIntegerValue,
            SetMetricsIntegerValue { name: name, value: value, type: kind }
        );
        structure!(
            facts,
            _OrthancPluginLogMessage,
            LogMessage {
                message: message,
                plugin: plugin,
                file: file,
                line: line,
                category: category,
                level: level,
            }
        );
    }
    if version >= OrthancVersion::new(1, 12, 9) {
        // Fields were appended. Orthanc passes a pointer, and the plugin reads only the fields before them.
        assert_eq!(facts.0.remove("sizeof(OrthancPluginHttpRequest)"), Some(72));
    }
    if version >= OrthancVersion::new(1, 13, 0) {
        facts.add("_OrthancPluginService_ClearCurrentThreadName", service::CLEAR_CURRENT_THREAD_NAME);
    }
}

/// Callback types have no size to compare: C functions with Rust's signatures must be assignable to them.
const SIGNATURES: &str = "
static OrthancPluginErrorCode c(const char* u, const void* p, int64_t n, OrthancPluginContentType t) { return 0; }
static OrthancPluginErrorCode r(void** p, int64_t* n, const char* u, OrthancPluginContentType t) { return 0; }
static OrthancPluginErrorCode w(OrthancPluginMemoryBuffer64* b, const char* u, OrthancPluginContentType t) { return 0; }
static OrthancPluginErrorCode g(OrthancPluginMemoryBuffer64* b, const char* u, OrthancPluginContentType t, uint64_t s)
{ return 0; }
static OrthancPluginErrorCode d(const char* u, OrthancPluginContentType t) { return 0; }
static OrthancPluginErrorCode q(OrthancPluginRestOutput* o, const char* u, const OrthancPluginHttpRequest* q)
{ return 0; }
static OrthancPluginErrorCode xf(OrthancPluginServerChunkedRequestReader** r, const char* u, const OrthancPluginHttpRequest* q)
{ return 0; }
static OrthancPluginErrorCode xa(OrthancPluginServerChunkedRequestReader* r, const void* d, uint32_t n) { return 0; }
static OrthancPluginErrorCode xe(OrthancPluginServerChunkedRequestReader* r, OrthancPluginRestOutput* o) { return 0; }
static void xz(OrthancPluginServerChunkedRequestReader* r) { }
static OrthancPluginErrorCode oc(OrthancPluginChangeType c, OrthancPluginResourceType l, const char* r) { return 0; }
static void rm(void) { }
static void jf(void* j) { }
static float jp(void* j) { return 0; }
static const char* jt(void* j) { return 0; }
static OrthancPluginJobStepStatus js(void* j) { return 1; }
static OrthancPluginErrorCode jo(void* j, OrthancPluginJobStopReason r) { return 0; }
static OrthancPluginErrorCode jr(void* j) { return 0; }
static OrthancPluginJob* ju(const char* t, const char* s) { return 0; }
static OrthancPluginErrorCode iv(struct _OrthancPluginContext_t* c, _OrthancPluginService s, const void* p) { return 0; }

OrthancPluginStorageCreate tc = c;
OrthancPluginStorageRead tr = r;
OrthancPluginStorageReadWhole tw = w;
OrthancPluginStorageReadRange tg = g;
OrthancPluginStorageRemove td = d;
OrthancPluginRestCallback tq = q;
OrthancPluginServerChunkedRequestReaderFactory txf = xf;
OrthancPluginServerChunkedRequestReaderAddChunk txa = xa;
OrthancPluginServerChunkedRequestReaderExecute txe = xe;
OrthancPluginServerChunkedRequestReaderFinalize txz = xz;
OrthancPluginOnChangeCallback toc = oc;
OrthancPluginJobFinalize tjf = jf;
OrthancPluginJobGetProgress tjp = jp;
OrthancPluginJobGetContent tjt = jt;
OrthancPluginJobGetSerialized tjz = jt;
OrthancPluginJobStep tjs = js;
OrthancPluginJobStop tjo = jo;
OrthancPluginJobReset tjr = jr;
OrthancPluginJobsUnserializer tju = ju;
OrthancPluginRefreshMetricsCallback trm = rm;
OrthancPluginFree tfr = jf;
OrthancPluginContext tcx = { 0, 0, jf, iv };
";

#[test]
fn declarations_match_the_installed_header() {
    let checked = compare(Path::new("/"), OrthancVersion::OLDEST);
    assert!(checked > 150, "only {checked} facts were compared");
}

#[test]
fn newer_declarations_match_the_headers_of_other_releases() {
    let releases = orthanc_roots::tested();
    assert!(!releases.is_empty());
    for release in releases {
        let version = OrthancVersion::parse(&release.version().unwrap()).unwrap();
        let checked = compare(&release.root(), version);
        assert!(checked > 170, "only {checked} facts were compared with {version}");
    }
}

/// Compares the declarations up to a version with the header below `root`. Returns their number.
fn compare(root: &Path, version: OrthancVersion) -> usize {
    let path = root.join(HEADER);
    assert!(path.is_file(), "{} is missing: run `cargo xtask install`", path.display());
    let header = path.display();

    let mut facts = Facts::default();
    constants(&mut facts);
    structures(&mut facts);
    newer(&mut facts, version);

    let mut source = format!("#include <stddef.h>\n#include \"{header}\"\n{SIGNATURES}\nint main(void) {{\n");
    for expression in facts.0.keys() {
        writeln!(source, "  printf(\"%s\\t%lld\\n\", \"{expression}\", (long long) {expression});").unwrap();
    }
    source.push_str("  return 0;\n}\n");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("facts.c");
    let program = folder.path().join("facts");
    std::fs::write(&file, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-std=c99", "-Werror=incompatible-pointer-types", "-o"])
        .args([&program, &file])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();

    let mut checked = 0;
    for line in printed.lines() {
        let (expression, value) = line.split_once('\t').unwrap();
        assert_eq!(facts.0[expression], value.parse::<i64>().unwrap(), "{expression}: Rust, then the header");
        checked += 1;
    }
    assert_eq!(checked, facts.0.len());
    checked
}
