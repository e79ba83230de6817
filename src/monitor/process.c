/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "monitor/process.h"
#include "shared/event.h"
#include "shared/h2-ring.h"
#include "shared/protocol.h"

#define STDIN_READ_BYTES 16384U
#define START_USEC       (60 * USEC_PER_SEC)

/* Output on its way into a pipe. */
typedef struct Output {
        GuestProcess *process; /* weak: owns us */
        int fd;                /* write end; -EBADF: nobody reads, what comes is dropped */
        H2Ring ring;
        sd_event_source *source;
} Output;

struct GuestProcess {
        AgentRequest rq;
        sd_event *event; /* weak: outlives us */
        const GuestProcessHandlers *handlers;
        void *userdata;
        char *spec; /* JSON, until it is sent */
        FrameDecoder decoder;
        int caller_fds[3];
        int stdin_fd; /* read end; -EBADF: none, or at its end */
        sd_event_source *stdin_source, *start_timer, *finish_source;
        Output outputs[2];
        H2Ring error_body; /* of an answer that is not 200 */
        uint32_t pid;
        char *tag;
        bool started; /* on_started ran */
        bool exit_seen;
        bool closed;   /* the stream is gone */
        size_t n_held; /* bytes of the chunk being decoded that an Output answers for */
        GuestProcessEnd end;
};

/* Spec */

void guest_process_spec_done(GuestProcessSpec *s) {
        s->argv = strv_free(s->argv);
        s->env = strv_free(s->env);
        free(s->cwd);
        free(s->user);
        free(s->tag);
        *s = (GuestProcessSpec) {};
}

int guest_process_spec_parse(json_t *message, GuestProcessSpec *ret, Fault *reterr) {
        static const JsonField fields[] = {
                { "argv", json_parse_strv, offsetof(GuestProcessSpec, argv),
                  JSON_FIELD_MANDATORY | JSON_FIELD_NON_EMPTY, .max = ARGV_MAX,
                  .total_max = ARGV_ENV_BYTES_MAX },
                { "env", json_parse_map, offsetof(GuestProcessSpec, env), .max = ENV_MAX,
                  .item_max = ENV_ENTRY_LEN_MAX, .total_max = ARGV_ENV_BYTES_MAX },
                { "cwd", json_parse_string, offsetof(GuestProcessSpec, cwd), .max = CWD_LEN_MAX },
                { "user", json_parse_string, offsetof(GuestProcessSpec, user), .max = NAME_MAX_LEN },
                { "tag", json_parse_string, offsetof(GuestProcessSpec, tag), .max = TAG_MAX_LEN },
                { "timeout_usec", json_parse_u64, offsetof(GuestProcessSpec, timeout_usec),
                  .max = EXEC_TIMEOUT_USEC_MAX },
                { "stdin", json_parse_bool, offsetof(GuestProcessSpec, with_stdin) },
                {},
        };
        GuestProcessSpec s = {};
        int r;

        r = json_dispatch(message, fields, &s, reterr);
        if (r < 0) {
                guest_process_spec_done(&s);
                return r;
        }
        *ret = s;
        return 0;
}

static char* spec_to_json(const GuestProcessSpec *s) {
        _cleanup_json_ json_t *args = json_from_strv(s->argv + 1), *env = json_from_env(s->env),
                              *spec = NULL;

        if (!args || !env)
                return NULL;
        spec = json_pack("{s:s, s:O, s:O, s:s, s:s, s:s, s:I, s:b, s:s, s:b}", "cmd", s->argv[0], "args",
                         args, "env", env, "cwd", strempty(s->cwd), "user", strempty(s->user), "tag",
                         strempty(s->tag), "timeout_usec", (json_int_t) s->timeout_usec, "stdin",
                         s->with_stdin, "on_disconnect", "kill", "shell_fallback", 1);
        return spec ? json_dumps(spec, JSON_COMPACT) : NULL;
}

/* End */

/* The fault of an answer that is not 200, in the agent's words as far as they are fit for display. */
static int agent_fault(GuestProcess *g, unsigned status, Fault *ret) {
        _cleanup_free_ char *text = NULL, *shown = NULL;
        _cleanup_json_ json_t *body = NULL;
        json_t *error;
        FaultCode code = FAULT_AGENT;
        size_t n = g->error_body.n;

        text = malloc(n + 1);
        if (!text)
                return fault_set(ret, FAULT_NO_MEMORY, "Out of memory.");
        h2_ring_get(&g->error_body, text, n);
        text[n] = 0;
        if (json_parse_text(text, n, &body, NULL) >= 0) {
                const char *message;

                error = json_object_get(body, "error");
                message = json_string_value(json_object_get(error, "message"));
                if (json_is_string(json_object_get(error, "code")))
                        code = fault_from_wire_name(json_string_value(json_object_get(error, "code")));
                if (message)
                        shown = escape_for_display(message,
                                                   MIN(strlen(message), (size_t) FAULT_MESSAGE_MAX / 4));
        }
        return fault_set(ret, code, "%s", shown ?: "The agent refused to start the process.");
}

static void tell_not_started(GuestProcess *g, int r, const Fault *fault) {
        int none[3] = { -EBADF, -EBADF, -EBADF };

        g->started = true;
        g->handlers->on_started(g, r, 0, "", none, fault, g->userdata);
}

static void output_close(Output *o) {
        o->source = event_source_free(o->source);
        o->fd = close_fd(o->fd);
        h2_ring_done(&o->ring);
}

/* The end is told once all output was taken, or its reader left. */
static int on_finish(sd_event_source *s, void *userdata) {
        GuestProcess *g = userdata;

        if (!g->closed || g->outputs[0].ring.n > 0 || g->outputs[1].ring.n > 0)
                return 0;
        output_close(&g->outputs[0]);
        output_close(&g->outputs[1]);
        g->handlers->on_exited(g, g->pid, strempty(g->tag), &g->end, g->userdata);
        return 0;
}

static void finish_later(GuestProcess *g) {
        if (g->closed && g->started)
                (void) event_defer(g->event, &g->finish_source, PRIORITY_CLIENT, on_finish, g);
}

/* Output */

static void output_gone(Output *o) {
        GuestProcess *g = o->process;

        if (g->rq.stream && o->ring.n > 0)
                h2_stream_consume(g->rq.stream, o->ring.n);
        output_close(o);
        if (g->outputs[0].fd < 0 && g->outputs[1].fd < 0 && g->rq.stream)
                (void) h2_stream_reset(g->rq.stream, H2_CANCEL);
        finish_later(g);
}

static int output_pump(Output *o) {
        GuestProcess *g = o->process;
        uint8_t buffer[4096];

        while (o->ring.n > 0) {
                size_t n = MIN(o->ring.n, sizeof(buffer)), first = MIN(n, o->ring.size - o->ring.start);
                ssize_t k;

                /* straight from the ring, so that what the pipe refuses stays there */
                k = write(o->fd, o->ring.data + o->ring.start, first);
                if (k < 0 && (errno == EAGAIN || errno == EINTR))
                        break;
                if (k < 0) {
                        output_gone(o);
                        return 0;
                }
                h2_ring_get(&o->ring, buffer, (size_t) k);
                if (g->rq.stream)
                        h2_stream_consume(g->rq.stream, (size_t) k);
        }
        (void) sd_event_source_set_io_events(o->source, o->ring.n > 0 ? EPOLLOUT : 0);
        if (o->ring.n == 0)
                finish_later(g);
        return 0;
}

static int on_output(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        Output *o = userdata;

        if (revents & (EPOLLERR | EPOLLHUP)) {
                output_gone(o);
                return 0;
        }
        return output_pump(o);
}

static int output_take(Output *o, const void *data, size_t n) {
        int r;

        if (o->fd < 0) {
                h2_stream_consume(o->process->rq.stream, n);
                return 0;
        }
        r = h2_ring_put(&o->ring, data, n);
        return r < 0 ? r : output_pump(o);
}

/* Input */

static void stdin_close(GuestProcess *g) {
        uint8_t header[FRAME_HEADER_LEN];

        if (g->stdin_fd < 0)
                return;
        g->stdin_source = event_source_free(g->stdin_source);
        g->stdin_fd = close_fd(g->stdin_fd);
        if (!g->rq.stream)
                return;
        frame_header(header, FRAME_STDIN_EOF, 0);
        (void) h2_stream_write(g->rq.stream, header, sizeof(header));
        (void) h2_stream_end(g->rq.stream);
}

/* Reads only what the stream takes as one frame, with room for the last one kept free. */
static int on_stdin(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        uint8_t frame[FRAME_HEADER_LEN + STDIN_READ_BYTES];
        GuestProcess *g = userdata;
        size_t room = g->rq.stream ? h2_stream_room(g->rq.stream) : 0;
        ssize_t n;

        if (room < sizeof(frame) + FRAME_HEADER_LEN) {
                (void) sd_event_source_set_enabled(g->stdin_source, SD_EVENT_OFF);
                return 0;
        }
        n = read(fd, frame + FRAME_HEADER_LEN, STDIN_READ_BYTES);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                stdin_close(g);
                return 0;
        }
        frame_header(frame, FRAME_STDIN, (uint32_t) n);
        (void) h2_stream_write(g->rq.stream, frame, FRAME_HEADER_LEN + (size_t) n);
        return 0;
}

/* Frames of the agent */

/* The agent's words for the way a process ended, and ours. */
static const struct {
        const char *agent, *ours;
} end_reasons[] = {
        { "exited", "exit" },   { "exit", "exit" },       { "signaled", "signal" },
        { "signal", "signal" }, { "timeout", "timeout" }, { "lost", "lost" },
};

static void set_end(GuestProcess *g, json_t *frame) {
        const char *reason = json_string_value(json_object_get(frame, "reason"));

        g->end = (GuestProcessEnd) {
                .exit_code = json_integer_value(json_object_get(frame, "exit_code")),
                .signal = json_integer_value(json_object_get(frame, "signal")),
        };
        if (g->end.exit_code < -1 || g->end.exit_code > 255)
                g->end.exit_code = -1;
        if (g->end.signal < 0 || g->end.signal > 64)
                g->end.signal = 0;
        g->end.reason = g->end.signal > 0 ? "signal" : "exit";
        for (size_t i = 0; reason && i < ELEMENTSOF(end_reasons); i++)
                if (streq(end_reasons[i].agent, reason))
                        g->end.reason = end_reasons[i].ours;
        g->exit_seen = true;
}

static int take_started(GuestProcess *g, json_t *frame) {
        json_int_t pid = json_integer_value(json_object_get(frame, "pid"));
        const char *tag = json_string_value(json_object_get(frame, "tag"));
        int r;

        if (g->started || pid <= 0 || pid > INT32_MAX || (tag && !tag_is_valid(tag)))
                return -EPROTO;
        r = free_and_strdup(&g->tag, strempty(tag));
        if (r < 0)
                return r;
        g->pid = (uint32_t) pid;
        g->started = true;
        g->start_timer = event_source_free(g->start_timer);
        g->handlers->on_started(g, 0, g->pid, g->tag, g->caller_fds, NULL, g->userdata);
        close_many(g->caller_fds, 3);
        return 0;
}

static int on_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        _cleanup_json_ json_t *frame = NULL;
        GuestProcess *g = userdata;
        int r;

        if (type == FRAME_STDOUT || type == FRAME_STDERR) {
                g->n_held += n;
                return output_take(&g->outputs[type == FRAME_STDERR], payload, n);
        }
        if (type != FRAME_STARTED && type != FRAME_EXIT)
                return -EPROTO;
        r = json_parse_text(payload, n, &frame, NULL);
        if (r < 0)
                return -EPROTO;
        if (type == FRAME_STARTED)
                return take_started(g, frame);
        set_end(g, frame);
        return 0;
}

/* The stream */

static GuestProcess* PROCESS(AgentRequest *rq) {
        return container_of(rq, GuestProcess, rq);
}

static int process_open(AgentRequest *rq, H2Session *s) {
        static const H2Header headers[] = { { "content-type", "application/octet-stream" } };
        GuestProcess *g = PROCESS(rq);
        uint8_t header[FRAME_HEADER_LEN];
        size_t n = strlen(g->spec);
        int r;

        r = h2_session_request(s, "POST", "/processes", headers, ELEMENTSOF(headers), /* end= */ false, rq,
                               &rq->stream);
        if (r < 0)
                return r;
        frame_header(header, FRAME_SPEC, (uint32_t) n);
        if (h2_stream_write(rq->stream, header, sizeof(header)) != (ssize_t) sizeof(header) ||
            h2_stream_write(rq->stream, g->spec, n) != (ssize_t) n) {
                (void) h2_stream_reset(rq->stream, H2_INTERNAL_ERROR);
                return 0;
        }
        free(g->spec);
        g->spec = NULL;
        if (g->stdin_fd < 0)
                return h2_stream_end(rq->stream);
        return event_io(g->event, &g->stdin_source, g->stdin_fd, EPOLLIN, PRIORITY_CLIENT, on_stdin, g,
                        "process-stdin");
}

static void process_on_headers(AgentRequest *rq) {
}

static void process_on_data(AgentRequest *rq, const void *data, size_t n) {
        GuestProcess *g = PROCESS(rq);
        int r;

        if (h2_stream_status(rq->stream) != 200) {
                h2_stream_consume(rq->stream, n);
                r = n <= AGENT_JSON_MAX - MIN(g->error_body.n, AGENT_JSON_MAX)
                                    ? h2_ring_put(&g->error_body, data, n)
                                    : -E2BIG;
        } else {
                g->n_held = 0;
                r = frame_decoder_feed(&g->decoder, data, n, on_frame, g);
                h2_stream_consume(
                                rq->stream,
                                n - g->n_held); /* all but the output, which is paid for when it was read */
        }
        if (r < 0)
                (void) h2_stream_reset(rq->stream, H2_INTERNAL_ERROR);
}

static void process_on_end(AgentRequest *rq) {
        GuestProcess *g = PROCESS(rq);
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        unsigned status = h2_stream_status(rq->stream);
        int r;

        if (g->started || status == 200)
                return;
        r = agent_fault(g, status, &fault);
        tell_not_started(g, r, &fault);
}

static void process_on_writable(AgentRequest *rq) {
        GuestProcess *g = PROCESS(rq);

        if (g->stdin_source)
                (void) sd_event_source_set_enabled(g->stdin_source, SD_EVENT_ON);
}

static void process_on_close(AgentRequest *rq, uint32_t error) {
        GuestProcess *g = PROCESS(rq);

        g->closed = true;
        g->start_timer = event_source_free(g->start_timer);
        stdin_close(g);
        if (!g->exit_seen)
                g->end = (GuestProcessEnd) { .exit_code = -1, .reason = "lost" };
        if (!g->started) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                int r = fault_set(&fault, FAULT_AGENT, "The agent did not start the process.");

                tell_not_started(g, r, &fault);
        } else if (g->pid != 0)
                finish_later(g);
}

static const AgentRequestOps process_ops = {
        .open = process_open,
        .on_headers = process_on_headers,
        .on_data = process_on_data,
        .on_end = process_on_end,
        .on_writable = process_on_writable,
        .on_close = process_on_close,
};

static int on_start_timeout(sd_event_source *s, uint64_t usec, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        GuestProcess *g = userdata;
        int r;

        agent_request_cancel(&g->rq, H2_CANCEL);
        r = fault_set(&fault, FAULT_TIMEOUT, "The agent did not start the process in time.");
        tell_not_started(g, r, &fault);
        return 0;
}

static int make_pipes(GuestProcess *g, bool with_stdin) {
        int fds[2], r;

        if (with_stdin) {
                if (pipe2(fds, O_CLOEXEC) < 0)
                        return -errno;
                g->stdin_fd = fds[0];
                g->caller_fds[0] = fds[1];
                r = fd_nonblock(fds[0], true);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < 2; i++) {
                Output *o = &g->outputs[i];

                if (pipe2(fds, O_CLOEXEC) < 0)
                        return -errno;
                g->caller_fds[1 + i] = fds[0];
                o->fd = fds[1];
                r = fd_nonblock(fds[1], true);
                if (r >= 0)
                        r = event_io(g->event, &o->source, o->fd, 0, PRIORITY_CLIENT, on_output, o,
                                     "process-output");
                if (r < 0)
                        return r;
        }
        return 0;
}

int guest_process_start(sd_event *e, AgentLink *agent, const GuestProcessSpec *spec,
                        const GuestProcessHandlers *handlers, void *userdata, GuestProcess **ret,
                        Fault *reterr) {
        _cleanup_(guest_process_freep) GuestProcess *g = NULL;
        int r;

        assert(spec->argv && spec->argv[0]);

        g = malloc(sizeof(GuestProcess));
        if (!g)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        *g = (GuestProcess) { .rq.ops = &process_ops,
                              .event = e,
                              .handlers = handlers,
                              .userdata = userdata,
                              .stdin_fd = -EBADF,
                              .caller_fds = { -EBADF, -EBADF, -EBADF } };
        for (size_t i = 0; i < 2; i++)
                g->outputs[i] = (Output) { .process = g, .fd = -EBADF };

        g->spec = spec_to_json(spec);
        r = g->spec ? make_pipes(g, spec->with_stdin) : -ENOMEM;
        if (r >= 0)
                r = event_timer(e, &g->start_timer, START_USEC, PRIORITY_CLIENT, on_start_timeout, g,
                                "process-start");
        if (r >= 0)
                r = agent_link_submit(agent, &g->rq);
        if (r == -ENOTCONN)
                return fault_set(reterr, FAULT_INVALID_STATE, "The capsule's agent is not ready."), r;
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to start the process");

        *ret = TAKE_PTR(g);
        return 0;
}

GuestProcess* guest_process_free(GuestProcess *g) {
        if (!g)
                return NULL;
        g->stdin_source = event_source_free(g->stdin_source);
        g->start_timer = event_source_free(g->start_timer);
        g->finish_source = event_source_free(g->finish_source);
        agent_request_cancel(&g->rq, H2_CANCEL);
        output_close(&g->outputs[0]);
        output_close(&g->outputs[1]);
        close_many(g->caller_fds, 3);
        (void) close_fd(g->stdin_fd);
        frame_decoder_done(&g->decoder);
        h2_ring_done(&g->error_body);
        free(g->spec);
        free(g->tag);
        free(g);
        return NULL;
}
