/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/process-call.h"
#include "shared/event.h"
#include "shared/json-field.h"

#define LINGER_USEC (1 * USEC_PER_SEC)

struct ProcessCall {
        AgentCall *call; /* NULL once failed */
        const ProcessHandlers *handlers;
        void *userdata;
        uint8_t *spec; /* its frame, kept until the agent answers: a refused stream is tried again */
        size_t n_spec, n_sent;
        FrameDecoder decoder;
        size_t n_held; /* of the data at hand */
        bool with_input, had_input;
        bool started, exited, dispatching, dead;
        sd_event_source *lingering;
};

ProcessCall* process_call_free(ProcessCall *p) {
        if (!p)
                return NULL;

        p->lingering = event_source_free(p->lingering);
        p->call = p->exited ? agent_call_leave(p->call) : agent_call_free(p->call);
        p->dead = true;
        if (p->dispatching)
                return NULL;

        frame_decoder_done(&p->decoder);
        free(p->spec);
        free(p);
        return NULL;
}

/* Nobody is interested any more; these end what process_call_linger() keeps. */

static void on_lingering_started(ProcessCall *p, const ProcessStarted *started, void *userdata) {
}

static bool on_lingering_output(ProcessCall *p, FrameType type, const void *data, size_t n, void *userdata) {
        return true;
}

static void on_lingering_exit(ProcessCall *p, const ProcessExit *e, void *userdata) {
        process_call_free(p);
}

static void on_lingering_failed(ProcessCall *p, const Fault *fault, void *userdata) {
        process_call_free(p);
}

static const ProcessHandlers lingering_handlers = {
        .on_started = on_lingering_started,
        .on_output = on_lingering_output,
        .on_exit = on_lingering_exit,
        .on_failed = on_lingering_failed,
};

static int on_lingered(sd_event_source *source, uint64_t usec, void *userdata) {
        process_call_free(userdata);
        return 0;
}

ProcessCall* process_call_linger(ProcessCall *p, sd_event *e) {
        if (!p)
                return NULL;

        if (p->exited || !p->call || !p->had_input || p->dispatching ||
            event_timer(e, &p->lingering, LINGER_USEC, PRIORITY_VMM, on_lingered, p, "process-linger") < 0)
                return process_call_free(p);

        process_call_consume(p, H2_WINDOW_BYTES);
        p->handlers = &lingering_handlers;
        return NULL;
}

static void process_fail(ProcessCall *p, const char *message) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        p->call = agent_call_free(p->call);
        (void) fault_set(&fault, FAULT_AGENT, "%s", message);
        p->handlers->on_failed(p, &fault, p->userdata);
}

/* To the agent. */

static int process_send_spec(ProcessCall *p) {
        ssize_t k;

        while (p->n_sent < p->n_spec) {
                k = agent_call_write(p->call, p->spec + p->n_sent, p->n_spec - p->n_sent);
                if (k <= 0)
                        return (int) k;
                p->n_sent += (size_t) k;
        }
        return p->with_input ? 0 : agent_call_end(p->call);
}

static void on_call_writable(AgentCall *a, void *userdata) {
        ProcessCall *p = userdata;

        if (p->n_sent < p->n_spec && process_send_spec(p) < 0) {
                process_fail(p, "Failed to send the command to the capsule.");
                return;
        }
        if (p->with_input && p->n_sent == p->n_spec && p->handlers->on_writable)
                p->handlers->on_writable(p, p->userdata);
}

static bool on_call_refused(AgentCall *a, void *userdata) {
        ProcessCall *p = userdata;

        p->n_sent = 0;
        return !p->had_input;
}

/* Writes a frame when there is room for it: 1, 0 or -errno. */
static int process_send_frame(ProcessCall *p, FrameType type, const void *payload, size_t n) {
        uint8_t head[FRAME_HEADER_LEN];
        ssize_t k;

        if (!p->call || p->exited)
                return -EPIPE;
        if (p->n_sent < p->n_spec || agent_call_room(p->call) < sizeof(head) + n)
                return 0;

        frame_header(head, type, (uint32_t) n);
        k = agent_call_write(p->call, head, sizeof(head));
        if (k >= 0)
                k = agent_call_write(p->call, payload, n);
        p->had_input = true;
        return k < 0 ? (int) k : 1;
}

ssize_t process_call_input(ProcessCall *p, const void *data, size_t n) {
        size_t room = p->call ? agent_call_room(p->call) : 0;
        int r;

        n = MIN(n, (size_t) FRAME_PAYLOAD_MAX);
        n = MIN(n, room > FRAME_HEADER_LEN ? room - FRAME_HEADER_LEN : 0);
        if (n == 0)
                return p->call ? 0 : -EPIPE;

        r = process_send_frame(p, FRAME_STDIN, data, n);
        return r > 0 ? (ssize_t) n : r;
}

int process_call_resize(ProcessCall *p, unsigned cols, unsigned rows) {
        uint8_t payload[] = { (uint8_t) (cols >> 8), (uint8_t) cols, (uint8_t) (rows >> 8), (uint8_t) rows };
        int r;

        r = process_send_frame(p, FRAME_RESIZE, payload, sizeof(payload));
        return r == 0 ? -EAGAIN : MIN(r, 0);
}

void process_call_consume(ProcessCall *p, size_t n) {
        if (p->call)
                agent_call_consume(p->call, n);
}

/* From the agent. */

static int process_started(ProcessCall *p, const void *payload, size_t n) {
        _cleanup_json_ json_t *root = NULL;
        const char *tag = NULL;
        json_int_t pid = 0;
        int pty = 0;

        root = json_loadb(payload, n, JSON_REJECT_DUPLICATES, NULL);
        if (!root || json_unpack(root, "{s:I,s:s,s?b}", "pid", &pid, "tag", &tag, "pty", &pty) < 0 ||
            pid < 1 || pid > UINT32_MAX)
                return -EPROTO;

        p->started = true;
        p->handlers->on_started(p, &(ProcessStarted) { (uint32_t) pid, tag, pty != 0 }, p->userdata);
        return 0;
}

static int process_exited(ProcessCall *p, const void *payload, size_t n) {
        _cleanup_json_ json_t *root = NULL;
        const char *reason = "";
        json_int_t code = 0;

        root = json_loadb(payload, n, JSON_REJECT_DUPLICATES, NULL);
        if (!root || json_unpack(root, "{s:I,s?s}", "exit_code", &code, "reason", &reason) < 0 ||
            code < -1 || code > 255)
                return -EPROTO;

        p->exited = true;
        p->handlers->on_exit(p,
                             &(ProcessExit) { .exit_code = (int) code,
                                              .timed_out = streq(reason, "timeout") },
                             p->userdata);
        return 0;
}

static int on_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        ProcessCall *p = userdata;
        int r = 0;

        if (p->exited || p->started == (type == FRAME_STARTED))
                return -EPROTO;

        switch (type) {
        case FRAME_STARTED:
                r = process_started(p, payload, n);
                break;
        case FRAME_STDOUT:
        case FRAME_STDERR:
        case FRAME_PTY:
                if (!p->handlers->on_output(p, type, payload, n, p->userdata))
                        p->n_held += n;
                break;
        case FRAME_EXIT:
                r = process_exited(p, payload, n);
                break;
        default:
                return -EPROTO;
        }
        return p->dead ? -ECANCELED : r;
}

static void on_call_response(AgentCall *a, unsigned status, void *userdata) {
        ProcessCall *p = userdata;

        if (p->n_sent < p->n_spec)
                return;
        free(p->spec);
        p->spec = NULL;
        p->n_spec = p->n_sent = 0;
}

static void on_call_data(AgentCall *a, const void *data, size_t n, void *userdata) {
        ProcessCall *p = userdata;
        int r;

        p->n_held = 0;
        p->dispatching = true;
        r = p->exited ? 0 : frame_decoder_feed(&p->decoder, data, n, on_frame, p);
        p->dispatching = false;
        if (p->dead)
                (void) process_call_free(p);
        else if (r < 0 && !p->exited)
                process_fail(p, "The capsule's agent sent something malformed.");
        else
                agent_call_consume(a, n - p->n_held);
}

static void on_call_end(AgentCall *a, void *userdata) {
        ProcessCall *p = userdata;

        if (!p->exited)
                process_fail(p, "The capsule's agent lost the command.");
}

static void on_call_failed(AgentCall *a, const Fault *fault, void *userdata) {
        ProcessCall *p = userdata;

        p->call = agent_call_free(p->call);
        if (!p->exited)
                p->handlers->on_failed(p, fault, p->userdata);
}

static const AgentCallHandlers call_handlers = {
        .on_response = on_call_response,
        .on_data = on_call_data,
        .on_end = on_call_end,
        .on_writable = on_call_writable,
        .on_refused = on_call_refused,
        .on_failed = on_call_failed,
};

int channel_start_process(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key, const char *spec,
                          bool with_input, const ProcessHandlers *handlers, void *userdata,
                          ProcessCall **ret) {
        _cleanup_(process_call_freep) ProcessCall *p = NULL;
        size_t n = strlen(spec);
        int r;

        p = malloc(sizeof(ProcessCall));
        if (!p)
                return -ENOMEM;
        *p = (ProcessCall) {
                .handlers = handlers,
                .userdata = userdata,
                .spec = malloc(FRAME_HEADER_LEN + n),
                .n_spec = FRAME_HEADER_LEN + n,
                .with_input = with_input,
        };
        if (!p->spec)
                return -ENOMEM;
        frame_header(p->spec, FRAME_SPEC, (uint32_t) n);
        memcpy(p->spec + FRAME_HEADER_LEN, spec, n);

        r = channel_call(t, capsule, key, "POST", "/processes", /* with_body= */ true, &call_handlers, p,
                         &p->call);
        if (r < 0)
                return r;
        r = process_send_spec(p);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(p);
        return 0;
}

int channel_attach_process(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key,
                           const char *selector, bool with_input, const ProcessHandlers *handlers,
                           void *userdata, ProcessCall **ret) {
        _cleanup_(process_call_freep) ProcessCall *p = NULL;
        _cleanup_free_ char *path = NULL;
        int r;

        path = process_path(selector, with_input ? "/attach?tail=1" : "");
        p = malloc(sizeof(ProcessCall));
        if (!path || !p) {
                free(TAKE_PTR(p));
                return -ENOMEM;
        }
        *p = (ProcessCall) { .handlers = handlers, .userdata = userdata, .with_input = with_input };

        r = channel_call(t, capsule, key, with_input ? "POST" : "GET", path, with_input, &call_handlers, p,
                         &p->call);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(p);
        return 0;
}

char* process_path(const char *selector, const char *rest) {
        _cleanup_free_ char *encoded = percent_encode(selector, strlen(selector));

        return encoded ? strjoin("/processes/", encoded, rest) : NULL;
}
