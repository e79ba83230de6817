/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* GET and DELETE …/processes (api.md §2.12, §2.13). */

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/process-call.h"
#include "rest/rest.h"
#include "shared/json-field.h"

typedef struct AgentOp {
        RestRequest *request; /* weak: it owns us */
        AgentCall *call;
        char *answer;
        size_t n_answer;
} AgentOp;

static void agent_op_free(void *operation) {
        AgentOp *o = operation;

        agent_call_free(o->call);
        free(o->answer);
        free(o);
}

static void agent_op_fail(AgentOp *o, FaultCode code, const char *message) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        o->call = agent_call_free(o->call);
        (void) fault_set(&fault, code, "%s", message);
        rest_answer_fault(o->request, &fault);
}

static void on_agent_data(AgentCall *c, const void *data, size_t n, void *userdata) {
        AgentOp *o = userdata;
        char *answer;

        if (o->n_answer + n > AGENT_JSON_MAX) {
                agent_op_fail(o, FAULT_AGENT,
                              "The list of processes is larger than 512K; kill some by pid or tag.");
                return;
        }
        answer = realloc(o->answer, o->n_answer + n);
        if (!answer) {
                agent_op_fail(o, FAULT_NO_MEMORY, "Out of memory.");
                return;
        }
        o->answer = answer;
        memcpy(answer + o->n_answer, data, n);
        o->n_answer += n;
        agent_call_consume(c, n);
}

static void on_agent_failed(AgentCall *c, const Fault *fault, void *userdata) {
        rest_answer_fault(((AgentOp *) userdata)->request, fault);
}

/* What clients see of one entry; NULL when the agent sent something else. */
static json_t* process_entry(json_t *entry) {
        const char *cmd = NULL, *tag = NULL;
        json_t *args = NULL, *a;
        json_int_t pid = 0;
        size_t i;

        if (json_unpack(entry, "{s:I,s:s,s?s,s?o}", "pid", &pid, "cmd", &cmd, "tag", &tag, "args", &args) <
                            0 ||
            pid < 1 || (args && !json_is_array(args)))
                return NULL;
        json_array_foreach(args, i, a)
                if (!json_is_string(a))
                        return NULL;

        return json_pack("{s:I,s:s*,s:s,s:O*}", "pid", pid, "tag", isempty(tag) ? NULL : tag, "cmd", cmd,
                         "args", json_array_size(args) > 0 ? args : NULL);
}

static void on_list_end(AgentCall *c, void *userdata) {
        _cleanup_json_ json_t *root = NULL, *list = json_array();
        json_t *entries = NULL, *entry;
        AgentOp *o = userdata;
        size_t i;

        (void) json_parse_text(strempty(o->answer), o->n_answer, &root, NULL);
        entries = json_object_get(root, "processes");
        if (!json_is_array(entries) || json_array_size(entries) > PROCESSES_MAX) {
                agent_op_fail(o, FAULT_AGENT, "The capsule's agent sent something malformed.");
                return;
        }
        json_array_foreach(entries, i, entry)
                if (json_array_append_new(list, process_entry(entry)) < 0) {
                        agent_op_fail(o, FAULT_AGENT, "The capsule's agent sent something malformed.");
                        return;
                }
        rest_answer_json_object(o->request, 200, json_pack("{s:O}", "processes", list));
}

static void on_signal_end(AgentCall *c, void *userdata) {
        rest_answer_empty(((AgentOp *) userdata)->request, 204);
}

static const AgentCallHandlers list_handlers = {
        .on_data = on_agent_data,
        .on_end = on_list_end,
        .on_failed = on_agent_failed,
};
static const AgentCallHandlers signal_handlers = {
        .on_data = on_agent_data,
        .on_end = on_signal_end,
        .on_failed = on_agent_failed,
};

static int agent_op_start(RestRequest *q, const char *method, const char *path,
                          const AgentCallHandlers *handlers, Fault *reterr) {
        AgentOp *o;
        int r;

        o = path ? malloc(sizeof(AgentOp)) : NULL;
        if (!o)
                return fault_set_errno(reterr, -ENOMEM, "Failed to ask the capsule");
        *o = (AgentOp) { .request = q };

        r = rest_agent_call(q, method, path, /* with_body= */ false, handlers, o, &o->call, reterr);
        if (r < 0) {
                agent_op_free(o);
                return r;
        }
        rest_request_wait(q, o, agent_op_free);
        (void) rest_request_set_deadline(q, AGENT_ANSWER_USEC);
        return 0;
}

int rest_processes_list(RestRequest *q, Fault *reterr) {
        return agent_op_start(q, "GET", "/processes", &list_handlers, reterr);
}

int rest_process_kill(RestRequest *q, Fault *reterr) {
        _cleanup_free_ char *value = NULL, *path = NULL;
        char rest[sizeof("/signal?signal=64")];
        int sig = SIGKILL, r;
        CapsuleView *v;

        r = rest_request_running_capsule(q, &v, reterr);
        if (r < 0)
                return r;

        r = route_query(q->query, "signal", &value);
        if (r == -ENOMEM)
                return fault_set_errno(reterr, r, "Failed to read the query");
        if (r > 0)
                sig = parse_signal(value);
        if (r < 0 || sig < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "query: expected signal=, a number 1 to 64 or a name like SIGTERM.");

        (void) snprintf(rest, sizeof(rest), "/signal?signal=%i", sig);
        path = process_path(q->args[1], rest);
        return agent_op_start(q, "POST", path, &signal_handlers, reterr);
}
