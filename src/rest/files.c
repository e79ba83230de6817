/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Files of a guest (api.md §2.18-2.25) whose request is JSON: a request to the agent each. Answers are
 * passed on as they come; the agent gets its credit back when the client has taken them, so that neither is
 * kept here. Uploads are in file-upload.c.
 */

#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/file-entry.h"
#include "rest/file-path.h"
#include "rest/files.h"

#define LIST_TEXT_BYTES (32 * KIB) /* of a listing, collected before they are passed on */

typedef struct FileOp {
        RestRequest *request; /* weak: it owns us */
        AgentCall *call;
        const char *type; /* of an answer of bytes */
        size_t n_owed;    /* bytes of the agent's answer whose credit is due */
        char *text;       /* an entry, as JSON */
        size_t n_text;
        FileList list;
} FileOp;

static void op_free(void *operation) {
        FileOp *o = operation;

        agent_call_free(o->call);
        file_list_done(&o->list);
        free(o->text);
        free(o);
}

static void op_fail(FileOp *o, FaultCode code, const char *message) {
        o->call = agent_call_free(o->call);
        file_answer_failure(o->request, code, message);
}

static void op_fail_malformed(FileOp *o) {
        op_fail(o, FAULT_AGENT, "The capsule's agent sent something malformed.");
}

static void on_failed(AgentCall *c, const Fault *fault, void *userdata) {
        FileOp *o = userdata;

        op_fail(o, fault->code, fault->message);
}

void file_answer_failure(RestRequest *q, FaultCode code, const char *message) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (q->answered) {
                gate_answer_abort(q->conn);
                return;
        }
        (void) fault_set(&fault, code, "%s", strempty(message));
        rest_answer_fault(q, &fault);
}

/* Credit: the agent may go on once the client has taken most of what came. */
static void op_settle_credit(FileOp *o) {
        if (!o->call || o->n_owed == 0 || gate_answer_unsent(o->request->conn) > HTTP_RELAY_BYTES)
                return;
        agent_call_consume(o->call, o->n_owed);
        o->n_owed = 0;
}

static void on_drained(RestRequest *q) {
        op_settle_credit(q->operation);
}

static const RestStream stream = { .on_drained = on_drained };

/* Nothing. */

static void on_data_ignored(AgentCall *c, const void *data, size_t n, void *userdata) {
        agent_call_consume(c, n);
}

static void on_end_empty(AgentCall *c, void *userdata) {
        FileOp *o = userdata;

        o->call = agent_call_free(o->call);
        rest_answer_empty(o->request, 204);
}

static const AgentCallHandlers empty_handlers = {
        .on_data = on_data_ignored,
        .on_end = on_end_empty,
        .on_failed = on_failed,
};

/* One entry. */

static void on_data_entry(AgentCall *c, const void *data, size_t n, void *userdata) {
        FileOp *o = userdata;
        char *text;

        if (o->n_text + n > FILE_ENTRY_LEN_MAX) {
                op_fail_malformed(o);
                return;
        }
        text = realloc(o->text, o->n_text + n);
        if (!text) {
                op_fail(o, FAULT_NO_MEMORY, "Out of memory.");
                return;
        }
        memcpy(text + o->n_text, data, n);
        o->text = text;
        o->n_text += n;
        agent_call_consume(c, n);
}

static void on_end_entry(AgentCall *c, void *userdata) {
        FileOp *o = userdata;
        json_t *entry;

        if (file_entry_parse(strempty(o->text), o->n_text, &entry) < 0) {
                op_fail_malformed(o);
                return;
        }
        o->call = agent_call_free(o->call);
        rest_answer_json_object(o->request, 200, json_pack("{s:o}", "entry", entry));
}

static const AgentCallHandlers entry_handlers = {
        .on_data = on_data_entry,
        .on_end = on_end_entry,
        .on_failed = on_failed,
};

/* Bytes. */

static void on_response_bytes(AgentCall *c, unsigned status, void *userdata) {
        FileOp *o = userdata;

        rest_answer_begin(o->request, 200, o->type);
}

static void on_data_bytes(AgentCall *c, const void *data, size_t n, void *userdata) {
        FileOp *o = userdata;

        gate_answer_data(o->request->conn, data, n);
        o->n_owed += n;
        op_settle_credit(o);
}

static void on_end_bytes(AgentCall *c, void *userdata) {
        FileOp *o = userdata;

        o->call = agent_call_free(o->call);
        gate_answer_end(o->request->conn);
}

static const AgentCallHandlers bytes_handlers = {
        .on_response = on_response_bytes,
        .on_data = on_data_bytes,
        .on_end = on_end_bytes,
        .on_failed = on_failed,
};

/* Listings. What fails before the first piece is out is still a proper error. */

static void list_pass_on(FileOp *o) {
        if (!o->request->answered)
                rest_answer_begin(o->request, 200, "application/json");
        gate_answer_data(o->request->conn, o->list.text, o->list.n_text);
        file_list_clear_text(&o->list);
}

static void list_fail(FileOp *o, int r) {
        if (r == -ENOMEM)
                op_fail(o, FAULT_NO_MEMORY, "Out of memory.");
        else if (r == -E2BIG)
                op_fail(o, FAULT_TOO_LARGE,
                        "The listing has too many entries; list a smaller directory or less deep.");
        else
                op_fail_malformed(o);
}

static void on_data_list(AgentCall *c, const void *data, size_t n, void *userdata) {
        FileOp *o = userdata;
        int r;

        r = file_list_feed(&o->list, data, n);
        if (r < 0) {
                list_fail(o, r);
                return;
        }
        if (o->list.n_text >= LIST_TEXT_BYTES)
                list_pass_on(o);
        o->n_owed += n;
        op_settle_credit(o);
}

static void on_end_list(AgentCall *c, void *userdata) {
        FileOp *o = userdata;
        int r;

        r = file_list_finish(&o->list);
        if (r < 0) {
                list_fail(o, r);
                return;
        }
        o->call = agent_call_free(o->call);
        list_pass_on(o);
        gate_answer_end(o->request->conn);
}

static const AgentCallHandlers list_handlers = {
        .on_data = on_data_list,
        .on_end = on_end_list,
        .on_failed = on_failed,
};

/* Requests. */

/* path_consume NULL: out of memory */
static int op_start(RestRequest *q, const char *method, char *path_consume,
                    const AgentCallHandlers *handlers, const char *type, Fault *reterr) {
        _cleanup_free_ char *path = path_consume;
        FileOp *o;
        int r;

        o = path ? malloc(sizeof(FileOp)) : NULL;
        if (!o)
                return fault_set_errno(reterr, -ENOMEM, "Failed to take the request");
        *o = (FileOp) { .request = q, .type = type };

        r = rest_agent_call(q, method, path, /* with_body= */ false, handlers, o, &o->call, reterr);
        if (r < 0) {
                op_free(o);
                return r;
        }
        rest_request_wait(q, o, op_free);
        rest_request_set_stream(q, &stream);
        (void) rest_request_set_deadline(q,
                                         handlers == &empty_handlers ? AGENT_WORK_USEC : AGENT_ANSWER_USEC);
        return 0;
}

/* The checks that come first, the body, and the path of most of these requests. */
static int open_body(RestRequest *q, json_t **ret, Fault *reterr) {
        CapsuleView *v;
        int r;

        r = rest_request_running_capsule(q, &v, reterr);
        if (r < 0)
                return r;
        return rest_request_json(q, ret, reterr);
}

static int open_path(RestRequest *q, char **ret, Fault *reterr) {
        _cleanup_json_ json_t *body = NULL;
        int r;

        r = open_body(q, &body, reterr);
        if (r < 0)
                return r;
        return file_path_from_json(body, "path", ret, reterr);
}

/* A request that is about one path and nothing else. */
static int ask_path(RestRequest *q, const char *method, const char *resource,
                    const AgentCallHandlers *handlers, const char *type, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = open_path(q, &path, reterr);
        if (r < 0)
                return r;
        return op_start(q, method, strjoin(resource, "?path=", path), handlers, type, reterr);
}

int rest_files_mkdir(RestRequest *q, Fault *reterr) {
        return ask_path(q, "POST", "/files/mkdir", &entry_handlers, NULL, reterr);
}

int rest_files_remove(RestRequest *q, Fault *reterr) {
        return ask_path(q, "POST", "/files/remove", &empty_handlers, NULL, reterr);
}

int rest_files_stat(RestRequest *q, Fault *reterr) {
        return ask_path(q, "GET", "/files/stat", &entry_handlers, NULL, reterr);
}

int rest_files_rename(RestRequest *q, Fault *reterr) {
        static const JsonField fields[] = { { "overwrite", json_parse_bool, 0 }, {} };
        _cleanup_free_ char *from = NULL, *to = NULL;
        _cleanup_json_ json_t *body = NULL;
        bool overwrite = false;
        int r;

        r = open_body(q, &body, reterr);
        if (r < 0)
                return r;
        r = file_path_from_json(body, "from", &from, reterr);
        if (r < 0)
                return r;
        r = file_path_from_json(body, "to", &to, reterr);
        if (r < 0)
                return r;
        r = json_dispatch(body, fields, &overwrite, reterr);
        if (r < 0)
                return r;
        return op_start(q, "POST",
                        strjoin("/files/rename?from=", from, "&to=", to,
                                "&overwrite=", overwrite ? "1" : "0"),
                        &entry_handlers, NULL, reterr);
}

int rest_files_list(RestRequest *q, Fault *reterr) {
        static const JsonField fields[] = {
                { "depth", json_parse_u32, 0, .limit = &limit_table[LIMIT_FILE_DEPTH] }, {}
        };
        _cleanup_free_ char *path = NULL;
        _cleanup_json_ json_t *body = NULL;
        uint32_t depth = 0;
        int r;

        r = open_body(q, &body, reterr);
        if (r < 0)
                return r;
        r = file_path_from_json(body, "path", &path, reterr);
        if (r < 0)
                return r;
        r = json_dispatch(body, fields, &depth, reterr);
        if (r < 0)
                return r;
        return op_start(q, "GET", asprintf_null("/files/list?path=%s&depth=%u", path, depth ?: 1),
                        &list_handlers, NULL, reterr);
}

/* Both reads: the bytes of a file, or of a part of it. */
int rest_files_read(RestRequest *q, Fault *reterr) {
        typedef struct Range {
                uint64_t offset, length;
        } Range;
        static const JsonField fields[] = {
                { "offset", json_parse_u64, offsetof(Range, offset), .max = INT64_MAX },
                { "length", json_parse_u64, offsetof(Range, length), .max = INT64_MAX },
                {},
        };
        _cleanup_free_ char *path = NULL, *length = NULL;
        _cleanup_json_ json_t *body = NULL;
        Range range = { .length = UINT64_MAX };
        int r;

        r = open_body(q, &body, reterr);
        if (r < 0)
                return r;
        r = file_path_from_json(body, "path", &path, reterr);
        if (r < 0)
                return r;
        r = json_dispatch(body, fields, &range, reterr);
        if (r < 0)
                return r;

        length = range.length != UINT64_MAX ? asprintf_null("&length=%" PRIu64, range.length) : strdup("");
        if (!length)
                return fault_set_errno(reterr, -ENOMEM, "Failed to take the request");
        return op_start(q, "GET",
                        asprintf_null("/files?path=%s&offset=%" PRIu64 "%s", path, range.offset, length),
                        &bytes_handlers, "application/octet-stream", reterr);
}

int rest_files_tar_read(RestRequest *q, Fault *reterr) {
        return ask_path(q, "GET", "/files/tar", &bytes_handlers, "application/x-tar", reterr);
}
