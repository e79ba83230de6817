/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* POST …/exec (api.md §2.11): a process in the guest over the capsule's channel, in the foreground or in the
 * background. */

#include <microhttpd.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/capsule-spec.h"
#include "rest/exec-output.h"
#include "rest/process-call.h"
#include "rest/rest.h"
#include "shared/event.h"
#include "shared/json-field.h"

#define BUFFERED_ANSWER_MAX (64 * KIB) /* larger answers are made while they are sent */
#define TIMEOUT_GRACE_USEC \
        (5 * USEC_PER_SEC) /* the agent keeps the time; this is for an agent that does not */

typedef struct ExecOp {
        RestRequest *request; /* weak: it owns us */
        char *id;             /* of the capsule */
        ExecSpec spec;
        ExecOutput output;
        ProcessCall *process;
        sd_event_source *timer;
} ExecOp;

static void exec_op_free(void *operation) {
        ExecOp *o = operation;

        process_call_free(o->process); /* in the foreground the command dies with it */
        event_source_free(o->timer);
        exec_output_done(&o->output);
        exec_spec_done(&o->spec);
        free(o->id);
        free(o);
}

static void exec_fail(ExecOp *o, FaultCode code, const char *message) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        RestRequest *q = o->request;

        o->process = process_call_free(o->process);
        o->timer = event_source_free(o->timer);
        (void) fault_set(&fault, code, "%s", message);
        rest_answer_fault(q, &fault);
}

static void exec_fail_timeout(ExecOp *o) {
        char text[FORMAT_TIME_LEN];
        _cleanup_free_ char *message = NULL;

        message = asprintf_null("The command timed out after %s and was killed.",
                                format_timespan(text, o->spec.timeout_usec));
        exec_fail(o, FAULT_TIMEOUT, message ?: "The command timed out and was killed.");
}

static int on_exec_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        exec_fail_timeout(userdata);
        return 0;
}

static ssize_t on_read_body(void *userdata, uint64_t position, char *buffer, size_t max) {
        size_t n = exec_body_read(userdata, buffer, max);

        return n > 0 ? (ssize_t) n : MHD_CONTENT_READER_END_OF_STREAM;
}

static void on_free_body(void *userdata) {
        (void) exec_body_free(userdata);
}

static void exec_answer(ExecOp *o, int exit_code) {
        uint64_t duration_usec = now_usec(CLOCK_MONOTONIC) - o->request->begin_usec;
        struct MHD_Response *response = NULL;
        ExecBody *body;
        int r;

        r = exec_body_new(o->id, o->spec.cmd, &o->output, exit_code, duration_usec / USEC_PER_MSEC, &body);
        if (r < 0) {
                exec_fail(o, FAULT_NO_MEMORY, "Out of memory.");
                return;
        }

        if (exec_body_size(body) <= BUFFERED_ANSWER_MAX) {
                size_t n = (size_t) exec_body_size(body);
                char *text = malloc(n);

                if (text) {
                        (void) exec_body_read(body, text, n);
                        response = MHD_create_response_from_buffer(n, text, MHD_RESPMEM_MUST_FREE);
                        if (!response)
                                free(text);
                }
                exec_body_free(body);
        } else {
                response = MHD_create_response_from_callback(exec_body_size(body), BUFFERED_ANSWER_MAX,
                                                             on_read_body, body, on_free_body);
                if (!response)
                        exec_body_free(body);
        }

        if (response)
                (void) MHD_add_response_header(response, "Content-Type", "application/json");
        rest_answer_response(o->request, 200, response);
}

static void on_process_started(ProcessCall *p, const ProcessStarted *started, void *userdata) {
        ExecOp *o = userdata;

        if (!o->spec.background)
                return;

        rest_answer_json_object(o->request, 202,
                                json_pack("{s:s,s:s,s:I,s:s}", "sandbox_id", o->id, "cmd", o->spec.cmd,
                                          "pid", (json_int_t) started->pid, "tag", started->tag));
        o->process = process_call_free(o->process);
}

static void on_process_exit(ProcessCall *p, const ProcessExit *e, void *userdata) {
        ExecOp *o = userdata;

        o->process = process_call_free(o->process);
        o->timer = event_source_free(o->timer);
        if (e->timed_out)
                exec_fail_timeout(o);
        else
                exec_answer(o, e->exit_code);
}

static bool on_process_output(ProcessCall *p, FrameType type, const void *data, size_t n, void *userdata) {
        ExecOp *o = userdata;
        int r;

        r = exec_output_append(&o->output, type == FRAME_STDERR, data, n);
        if (r == -E2BIG)
                exec_fail(o, FAULT_TOO_LARGE,
                          "The command wrote more than 64 MiB and was killed; write to a file instead.");
        else if (r == -ENOBUFS)
                exec_fail(o, FAULT_NO_CAPACITY,
                          "The output of all commands together is too large; the command was killed.");
        else if (r < 0)
                exec_fail(o, FAULT_NO_MEMORY, "Out of memory.");
        return true;
}

static void on_process_failed(ProcessCall *p, const Fault *fault, void *userdata) {
        ExecOp *o = userdata;

        o->timer = event_source_free(o->timer);
        rest_answer_fault(o->request, fault);
}

static const ProcessHandlers process_handlers = {
        .on_started = on_process_started,
        .on_output = on_process_output,
        .on_exit = on_process_exit,
        .on_failed = on_process_failed,
};

static int exec_op_start(ExecOp *o, const CapsuleView *v, Fault *reterr) {
        RestServer *s = o->request->server;
        _cleanup_free_ char *agent_spec = NULL;
        uint64_t max_usec = bus_client_max_exec_usec(s->bus);
        int r;

        if (!o->spec.background)
                o->spec.timeout_usec = MIN(o->spec.timeout_usec ?: max_usec, max_usec);
        else
                o->spec.timeout_usec = 0;

        o->id = strdup(v->id);
        agent_spec = exec_spec_to_agent(&o->spec);
        if (!o->id || !agent_spec)
                return fault_set_errno(reterr, -ENOMEM, "Failed to run the command");

        if (o->spec.timeout_usec > 0) {
                r = event_timer(s->event, &o->timer, o->spec.timeout_usec + TIMEOUT_GRACE_USEC,
                                PRIORITY_CLIENT, on_exec_timer, o, "exec");
                if (r < 0)
                        return fault_set_errno(reterr, r, "Failed to run the command");
        }

        r = channel_start_process(s->channels, v, o->request->key, agent_spec, /* with_input= */ false,
                                  &process_handlers, o, &o->process);
        if (r == -ENOBUFS)
                return fault_set(reterr, FAULT_NO_CAPACITY, "Too many commands wait for this capsule.");
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to run the command");
        return 0;
}

int rest_capsule_exec(RestRequest *q, Fault *reterr) {
        _cleanup_(exec_spec_done) ExecSpec spec = {};
        _cleanup_json_ json_t *body = NULL;
        CapsuleView *v;
        ExecOp *o;
        int r;

        r = rest_request_running_capsule(q, &v, reterr);
        if (r < 0)
                return r;
        r = rest_request_json(q, &body, reterr);
        if (r < 0)
                return r;
        r = exec_spec_from_json(body, &spec, reterr);
        if (r < 0)
                return r;

        o = malloc(sizeof(ExecOp));
        if (!o)
                return fault_set_errno(reterr, -ENOMEM, "Failed to run the command");
        *o = (ExecOp) { .request = q, .spec = spec };
        spec = (ExecSpec) {};
        exec_output_init(&o->output, &q->server->exec_output_bytes);

        r = exec_op_start(o, v, reterr);
        if (r < 0) {
                exec_op_free(o);
                return r;
        }
        rest_request_wait(q, o, exec_op_free);
        return 0;
}
