/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "monitor/agent-error.h"
#include "monitor/fd-flow.h"
#include "monitor/process.h"
#include "shared/event.h"
#include "shared/protocol.h"

#define START_USEC (60 * USEC_PER_SEC)

struct GuestProcess {
        AgentRequest rq;
        sd_event *event; /* weak: outlives us */
        const GuestProcessHandlers *handlers;
        void *userdata;
        char *path;
        H2Ring spec;   /* frame of the spec, as far as it is not sent */
        bool attached; /* it was there before */
        bool pty;
        FrameDecoder decoder;
        int caller_fds[3]; /* [stdin] stdout stderr, or a terminal's socket */
        size_t n_caller_fds;
        FdFeed input;
        FdSink outputs[2]; /* of a terminal the first alone */
        sd_event_source *start_timer, *finish_source;
        AgentError error;
        uint32_t pid;
        char *tag;
        bool started;    /* on_started ran */
        bool body_ended; /* we send no more */
        bool exit_seen;
        bool left;     /* nobody reads what we are attached to */
        bool closed;   /* the stream is gone */
        size_t n_held; /* bytes of the chunk being decoded that an output answers for */
        GuestProcessEnd end;
};

/* End */

static void tell_not_started(GuestProcess *g, int r, const Fault *fault) {
        g->started = true;
        g->handlers->on_started(g, r, NULL, fault, g->userdata);
}

/* The end is told once all output was taken, or its reader left. */
static int on_finish(sd_event_source *s, void *userdata) {
        GuestProcess *g = userdata;

        if (!g->closed || g->outputs[0].ring.n > 0 || g->outputs[1].ring.n > 0)
                return 0;
        fd_sink_close(&g->outputs[0]);
        fd_sink_close(&g->outputs[1]);
        fd_feed_close(&g->input);
        g->handlers->on_exited(g, g->pid, strempty(g->tag), g->left ? NULL : &g->end, g->userdata);
        return 0;
}

static void finish_later(GuestProcess *g) {
        if (g->closed && g->started)
                (void) event_defer(g->event, &g->finish_source, PRIORITY_CLIENT, on_finish, g);
}

/* Output */

/* Nobody reads: see process.h. A terminal's stream goes on, so that its end is seen. */
static void on_reader_left(GuestProcess *g) {
        if (g->outputs[0].fd >= 0 || g->outputs[1].fd >= 0)
                return;
        if (g->pty)
                fd_feed_close(&g->input);
        if (g->pty && !g->attached)
                return;
        g->left = g->attached && !g->exit_seen;
        if (g->rq.stream)
                (void) h2_stream_reset(g->rq.stream, H2_CANCEL);
}

static void on_output(FdSink *s, int r, void *userdata) {
        GuestProcess *g = userdata;

        if (r < 0)
                on_reader_left(g);
        if (r < 0 || s->ring.n == 0)
                finish_later(g);
}

/* Input */

/* The end of a terminal's input is none for the process: there may be others who type. */
static void on_input_end(FdFeed *f, int r, void *userdata) {
        uint8_t header[FRAME_HEADER_LEN];
        GuestProcess *g = userdata;

        if (g->pty || !g->rq.stream)
                return;
        frame_header(header, FRAME_STDIN_EOF, 0);
        (void) h2_stream_write(g->rq.stream, header, sizeof(header));
        (void) h2_stream_end(g->rq.stream);
        g->body_ended = true;
}

/* The spec first, then what is typed. */
static void send_input(GuestProcess *g) {
        uint8_t buffer[4096];

        while (g->spec.n > 0) {
                size_t n = MIN(g->spec.n, sizeof(buffer));

                n = MIN(n, h2_stream_room(g->rq.stream));
                if (n == 0)
                        return;
                h2_ring_get(&g->spec, buffer, n);
                (void) h2_stream_write(g->rq.stream, buffer, n);
                if (g->spec.n == 0 && g->input.fd < 0 && !g->pty) {
                        (void) h2_stream_end(g->rq.stream);
                        g->body_ended = true;
                }
        }
        fd_feed_wake(&g->input);
}

/* The fds */

static int make_pipe(GuestProcess *g, int *ret_ours, bool we_read) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        *ret_ours = fds[we_read ? 0 : 1];
        g->caller_fds[g->n_caller_fds++] = fds[we_read ? 1 : 0];
        return 0;
}

static int make_pipes(GuestProcess *g, bool with_stdin) {
        int r;

        if (with_stdin) {
                _cleanup_close_ int ours = -EBADF;

                r = make_pipe(g, &ours, /* we_read= */ true);
                if (r >= 0)
                        r = fd_feed_open(&g->input, g->event, ours, /* shared= */ false, /* framed= */ true,
                                         &g->rq, on_input_end, g);
                if (r < 0)
                        return r;
                (void) TAKE_FD(ours);
        }
        for (size_t i = 0; i < ELEMENTSOF(g->outputs); i++) {
                _cleanup_close_ int ours = -EBADF;

                r = make_pipe(g, &ours, /* we_read= */ false);
                if (r >= 0)
                        r = fd_sink_open(&g->outputs[i], g->event, ours, /* shared= */ false, &g->rq,
                                         on_output, g);
                if (r < 0)
                        return r;
                (void) TAKE_FD(ours);
        }
        return 0;
}

static int make_terminal(GuestProcess *g) {
        _cleanup_close_ int ours = -EBADF, again = -EBADF;
        int fds[2], r;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        ours = fds[0];
        g->caller_fds[g->n_caller_fds++] = fds[1];

        /* one for each direction: an fd is watched once */
        again = fcntl(ours, F_DUPFD_CLOEXEC, 3);
        if (again < 0)
                return -errno;
        r = fd_feed_open(&g->input, g->event, again, /* shared= */ false, /* framed= */ true, &g->rq,
                         on_input_end, g);
        if (r < 0)
                return r;
        (void) TAKE_FD(again);
        r = fd_sink_open(&g->outputs[0], g->event, ours, /* shared= */ false, &g->rq, on_output, g);
        if (r < 0)
                return r;
        (void) TAKE_FD(ours);
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
        if (r >= 0 && g->attached) {
                g->pty = json_is_true(json_object_get(frame, "pty"));
                r = g->pty ? make_terminal(g) : make_pipes(g, /* with_stdin= */ false);
        }
        if (r < 0)
                return r;

        g->pid = (uint32_t) pid;
        g->started = true;
        g->start_timer = event_source_free(g->start_timer);
        g->handlers->on_started(g, 0,
                                &(GuestProcessStart) { .pid = g->pid,
                                                       .tag = g->tag,
                                                       .pty = g->pty,
                                                       .fds = g->caller_fds,
                                                       .n_fds = g->n_caller_fds },
                                NULL, g->userdata);
        close_many(g->caller_fds, ELEMENTSOF(g->caller_fds));
        fd_feed_wake(&g->input);
        return 0;
}

static int on_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        _cleanup_json_ json_t *frame = NULL;
        GuestProcess *g = userdata;
        int r;

        if (g->started && (g->pty ? type == FRAME_PTY : type == FRAME_STDOUT || type == FRAME_STDERR)) {
                g->n_held += n;
                return fd_sink_take(&g->outputs[type == FRAME_STDERR], payload, n);
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
        int r;

        r = h2_session_request(s, "POST", g->path, headers, ELEMENTSOF(headers), /* end= */ false, rq,
                               &rq->stream);
        if (r >= 0)
                send_input(g);
        return r;
}

static void process_on_headers(AgentRequest *rq) {
}

static void process_on_data(AgentRequest *rq, const void *data, size_t n) {
        GuestProcess *g = PROCESS(rq);
        int r;

        if (h2_stream_status(rq->stream) != 200) {
                h2_stream_consume(rq->stream, n);
                r = agent_error_take(&g->error, data, n);
        } else {
                g->n_held = 0;
                r = frame_decoder_feed(&g->decoder, data, n, on_frame, g);
                /* all but the output, which is paid for when it was read */
                h2_stream_consume(rq->stream, n - g->n_held);
        }
        if (r < 0)
                (void) h2_stream_reset(rq->stream, H2_INTERNAL_ERROR);
}

/* The agent has said all: so have we. */
static void end_body(GuestProcess *g) {
        fd_feed_close(&g->input);
        if (g->body_ended)
                return;
        if (h2_stream_room(g->rq.stream) == H2_QUEUE_BYTES_MAX)
                (void) h2_stream_end(g->rq.stream);
        else /* what is queued would have to be taken first */
                (void) h2_stream_reset(g->rq.stream, H2_NO_ERROR);
}

static void process_on_end(AgentRequest *rq) {
        GuestProcess *g = PROCESS(rq);
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        if (g->started || h2_stream_status(rq->stream) == 200) {
                end_body(g);
                return;
        }
        r = agent_error_fault(&g->error, "The agent refused to start the process.", &fault);
        tell_not_started(g, r, &fault);
}

static void process_on_writable(AgentRequest *rq) {
        send_input(PROCESS(rq));
}

static void process_on_close(AgentRequest *rq, uint32_t error) {
        GuestProcess *g = PROCESS(rq);

        g->closed = true;
        g->start_timer = event_source_free(g->start_timer);
        fd_feed_close(&g->input);
        if (!g->exit_seen)
                g->end = (GuestProcessEnd) { .exit_code = -1, .reason = "lost" };
        if (!g->started) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                int r = fault_set(&fault, FAULT_AGENT,
                                  g->attached ? "The agent did not attach to the process."
                                              : "The agent did not start the process.");

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

/* Life */

static GuestProcess* process_new(sd_event *e, const GuestProcessHandlers *handlers, void *userdata) {
        GuestProcess *g = malloc(sizeof(GuestProcess));

        if (!g)
                return NULL;
        *g = (GuestProcess) { .rq.ops = &process_ops,
                              .event = e,
                              .handlers = handlers,
                              .userdata = userdata,
                              .caller_fds = { -EBADF, -EBADF, -EBADF },
                              .input = FD_FEED_NULL,
                              .outputs = { FD_SINK_NULL, FD_SINK_NULL } };
        return g;
}

static int process_submit(GuestProcess *g, AgentLink *agent, Fault *reterr) {
        int r;

        r = event_timer(g->event, &g->start_timer, START_USEC, PRIORITY_CLIENT, on_start_timeout, g,
                        "process-start");
        if (r >= 0)
                r = agent_link_submit(agent, &g->rq);
        if (r == -ENOTCONN)
                return fault_set(reterr, FAULT_INVALID_STATE, "The capsule's agent is not ready."), r;
        return r < 0 ? fault_set_errno(reterr, r, "Failed to ask the agent for the process") : 0;
}

/* -E2BIG when the agent would not read it. */
static int put_spec(GuestProcess *g, const GuestProcessSpec *spec) {
        _cleanup_free_ char *text = guest_process_spec_to_json(spec);
        uint8_t header[FRAME_HEADER_LEN];
        size_t n = text ? strlen(text) : 0;
        int r;

        if (n == 0)
                return -ENOMEM;
        if (n > AGENT_JSON_MAX)
                return -E2BIG;
        frame_header(header, FRAME_SPEC, (uint32_t) n);
        r = h2_ring_put(&g->spec, header, sizeof(header));
        return r < 0 ? r : h2_ring_put(&g->spec, text, n);
}

int guest_process_start(sd_event *e, AgentLink *agent, const GuestProcessSpec *spec,
                        const GuestProcessHandlers *handlers, void *userdata, GuestProcess **ret,
                        Fault *reterr) {
        _cleanup_(guest_process_freep) GuestProcess *g = process_new(e, handlers, userdata);
        int r;

        r = !g || !(g->path = strdup("/processes")) ? -ENOMEM : put_spec(g, spec);
        if (r == -E2BIG)
                return fault_set(reterr, FAULT_TOO_LARGE,
                                 "argv and env: expected at most %llu bytes together, as JSON.",
                                 (unsigned long long) AGENT_JSON_MAX);
        if (r >= 0) {
                g->pty = spec->cols > 0;
                r = g->pty ? make_terminal(g) : make_pipes(g, spec->with_stdin);
        }
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to start the process");
        r = process_submit(g, agent, reterr);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(g);
        return 0;
}

int guest_process_attach(sd_event *e, AgentLink *agent, const char *selector,
                         const GuestProcessHandlers *handlers, void *userdata, GuestProcess **ret,
                         Fault *reterr) {
        _cleanup_(guest_process_freep) GuestProcess *g = process_new(e, handlers, userdata);
        _cleanup_free_ char *encoded = percent_encode(selector, strlen(selector));
        int r;

        if (!g || !encoded || !(g->path = strjoin("/processes/", encoded, "/attach?tail=1")))
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        g->attached = true;
        r = process_submit(g, agent, reterr);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(g);
        return 0;
}

GuestProcess* guest_process_free(GuestProcess *g) {
        if (!g)
                return NULL;
        g->start_timer = event_source_free(g->start_timer);
        g->finish_source = event_source_free(g->finish_source);
        agent_request_cancel(&g->rq, H2_CANCEL);
        fd_feed_close(&g->input);
        fd_sink_close(&g->outputs[0]);
        fd_sink_close(&g->outputs[1]);
        close_many(g->caller_fds, ELEMENTSOF(g->caller_fds));
        frame_decoder_done(&g->decoder);
        h2_ring_done(&g->spec);
        agent_error_done(&g->error);
        free(g->path);
        free(g->tag);
        free(g);
        return NULL;
}
