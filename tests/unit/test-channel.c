/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Calls to a fake agent over a channel; this test stands in wrennd's place and answers OpenChannel. */

#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/process-call.h"
#include "shared/event.h"
#include "tests/fake/fake-agent.h"
#include "tests/unit/test.h"

typedef struct Rig {
        sd_event *event;
        sd_bus *bus; /* never connected: for messages */
        int bus_peer;
        FakeAgent *agent;
        FakeAgentOptions options;
        ChannelTable *channels;
        bool refuse;
        unsigned n_opened;
} Rig;

/* One question to "wrennd". */
struct BusCall {
        Rig *rig;
        sd_event_source *source;
        BusDone done;
        void *userdata;
        int fd;
};

/* In the place of bus-client.c; the BusClient is the rig. */

int bus_client_message(BusClient *b, const char *path, const char *member, sd_bus_message **ret) {
        return sd_bus_message_new_method_call(((Rig *) b)->bus, ret, "a.b", path, "a.b", member);
}

int bus_message_open_options(sd_bus_message *m, const char *team, const char *key_id) {
        return 0;
}

int bus_message_close_options(sd_bus_message *m) {
        return 0;
}

BusCall* bus_call_free(BusCall *c) {
        if (c) {
                event_source_free(c->source);
                (void) close_fd(c->fd);
                free(c);
        }
        return NULL;
}

/* What the monitor reads off the agent's port before a session. */
static bool agent_is_there(int fd) {
        char text[22];

        return recv(fd, text, sizeof(text), MSG_PEEK | MSG_DONTWAIT) == sizeof(text) &&
               recv(fd, text, sizeof(text), 0) == sizeof(text);
}

static int on_asked(sd_event_source *s, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        sd_bus_message *m = NULL;
        BusCall *c = userdata;
        Rig *rig = c->rig;
        int fds[2];

        if (rig->refuse) {
                (void) fault_set(&fault, FAULT_AGENT, "refused");
                c->done(c, -EREMOTEIO, NULL, &fault, c->userdata);
                return 0;
        }
        if (c->fd < 0) {
                rig->n_opened++;
                rig->agent = fake_agent_free(rig->agent);
                ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
                ASSERT_OK(fake_agent_new(rig->event, fds[1], &rig->options, &rig->agent));
                c->fd = fds[0];
        }
        if (!agent_is_there(c->fd)) {
                ASSERT_OK(event_defer(rig->event, &c->source, PRIORITY_CLIENT, on_asked, c));
                return 0;
        }

        ASSERT_OK(sd_bus_message_new_method_call(rig->bus, &m, "a.b", "/a", "a.b", "c"));
        ASSERT_OK(sd_bus_message_append(m, "h", c->fd));
        ASSERT_OK(sd_bus_message_seal(m, 1, 0));
        ASSERT_OK(sd_bus_message_rewind(m, true));
        c->done(c, 0, m, NULL, c->userdata);
        sd_bus_message_unref(m);
        return 0;
}

int bus_client_send(BusClient *b, sd_bus_message *m, uint64_t timeout_usec, BusDone done, void *userdata,
                    BusCall **ret) {
        BusCall *c = calloc(1, sizeof(BusCall));

        ASSERT_NOT_NULL(c);
        *c = (BusCall) { .rig = (Rig *) b, .done = done, .userdata = userdata, .fd = -EBADF };
        ASSERT_OK(event_defer(c->rig->event, &c->source, PRIORITY_CLIENT, on_asked, c));
        *ret = c;
        return 0;
}

static void rig_init(Rig *rig, const FakeAgentOptions *options) {
        int fds[2];

        *rig = (Rig) { .options = options ? *options : (FakeAgentOptions) {} };
        ASSERT_OK(sd_event_new(&rig->event));
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
        rig->bus_peer = fds[1];
        ASSERT_OK(sd_bus_new(&rig->bus));
        ASSERT_OK(sd_bus_set_fd(rig->bus, fds[0], fds[0]));
        ASSERT_OK(sd_bus_start(rig->bus));
        ASSERT_OK(channel_table_new(rig->event, (BusClient *) rig, &rig->channels));
}

static void rig_done(Rig *rig) {
        channel_table_free(rig->channels);
        fake_agent_free(rig->agent);
        sd_bus_close(rig->bus);
        sd_bus_unref(rig->bus);
        close(rig->bus_peer);
        sd_event_unref(rig->event);
}

#define RUN_UNTIL(rig, condition)                                                   \
        do {                                                                        \
                uint64_t deadline_ = now_usec(CLOCK_MONOTONIC) + 30 * USEC_PER_SEC; \
                while (!(condition)) {                                              \
                        ASSERT_OK(sd_event_run((rig)->event, 100 * USEC_PER_MSEC)); \
                        if (now_usec(CLOCK_MONOTONIC) > deadline_)                  \
                                fail_msg("not reached: %s", #condition);            \
                }                                                                   \
        } while (0)

static const CapsuleView capsule = { .id = (char *) "cl-x", .path = (char *) "/x" };
static const AuthKey key = { .id = (char *) "key", .team = (char *) "team" };

/* A call and what came of it. */
typedef struct Seen {
        AgentCall *call;
        unsigned status, n_writable;
        size_t n, held;
        char data[256];
        bool hold, ended, refused, free_at_data;
        FaultCode fault;
        char message[128];
} Seen;

static void on_response(AgentCall *c, unsigned status, void *userdata) {
        ((Seen *) userdata)->status = status;
}

static void on_data(AgentCall *c, const void *data, size_t n, void *userdata) {
        Seen *s = userdata;

        if (s->n < sizeof(s->data) - 1)
                memcpy(s->data + s->n, data, MIN(n, sizeof(s->data) - 1 - s->n));
        s->n += n;
        if (s->free_at_data)
                s->call = agent_call_free(s->call);
        else if (s->hold)
                s->held += n;
        else
                agent_call_consume(c, n);
}

static void on_end(AgentCall *c, void *userdata) {
        ((Seen *) userdata)->ended = true;
}

static void on_writable(AgentCall *c, void *userdata) {
        ((Seen *) userdata)->n_writable++;
}

static void on_failed(AgentCall *c, const Fault *fault, void *userdata) {
        Seen *s = userdata;

        s->fault = fault->code;
        (void) snprintf(s->message, sizeof(s->message), "%s", fault->message);
}

static const AgentCallHandlers handlers = {
        .on_response = on_response,
        .on_data = on_data,
        .on_end = on_end,
        .on_writable = on_writable,
        .on_failed = on_failed,
};

static void call(Rig *rig, Seen *s, const char *method, const char *path, bool with_body) {
        ASSERT_OK(channel_call(rig->channels, &capsule, &key, method, path, with_body, &handlers, s,
                               &s->call));
}

TEST(request_without_body) {
        Seen s = {};
        Rig rig;

        rig_init(&rig, NULL);
        call(&rig, &s, "GET", "/files?path=a%20b", false);
        ASSERT_EQ(agent_call_room(s.call), 0);
        ASSERT_EQ(agent_call_write(s.call, "x", 1), -EPIPE);
        RUN_UNTIL(&rig, s.ended);
        ASSERT_EQ(s.status, 200);
        agent_call_free(s.call);
        rig_done(&rig);
}

/* All of a large body goes there and comes back; what is not consumed stops it. */
TEST(body_both_ways_with_back_pressure) {
        enum { TOTAL = 4 * 1024 * 1024 };
        static char piece[10000];
        Seen s = { .hold = true };
        size_t sent = 0, before;
        Rig rig;

        rig_init(&rig, NULL);
        call(&rig, &s, "PUT", "/files", true);
        RUN_UNTIL(&rig, s.n_writable > 0 && s.status == 200);
        ASSERT_EQ(agent_call_room(s.call), H2_QUEUE_BYTES_MAX);

        do {
                ssize_t k = agent_call_write(s.call, piece, sizeof(piece));

                ASSERT_OK(k);
                sent += (size_t) k;
                before = s.n;
                for (unsigned i = 0; i < 50; i++)
                        (void) sd_event_run(rig.event, 0);
        } while (s.n > before || s.n < H2_WINDOW_BYTES);
        ASSERT_EQ(s.n, H2_WINDOW_BYTES);

        s.hold = false;
        agent_call_consume(s.call, s.held);
        while (s.n < TOTAL) {
                ssize_t k = agent_call_write(s.call, piece, MIN(sizeof(piece), TOTAL - sent));

                ASSERT_OK(k);
                sent += (size_t) k;
                ASSERT_OK(sd_event_run(rig.event, 100 * USEC_PER_MSEC));
        }
        ASSERT_OK(agent_call_end(s.call));
        ASSERT_EQ(agent_call_write(s.call, "x", 1), -EPIPE);
        RUN_UNTIL(&rig, s.ended);
        ASSERT_EQ(s.n, TOTAL);
        agent_call_free(s.call);
        rig_done(&rig);
}

TEST(calls_wait_for_a_stream_and_are_bounded) {
        const FakeAgentOptions options = { .streams_max = 2 };
        static Seen s[EXEC_PENDING_MAX + 2];
        AgentCall *more = NULL;
        unsigned n = 0;
        Rig rig;

        memset(s, 0, sizeof(s));
        rig_init(&rig, &options);
        for (n = 0; n < EXEC_PENDING_MAX; n++)
                call(&rig, &s[n], "GET", "/x", false);
        ASSERT_EQ(channel_call(rig.channels, &capsule, &key, "GET", "/x", false, &handlers, &s[n], &more),
                  -ENOBUFS);
        for (unsigned i = 0; i < n; i++) {
                RUN_UNTIL(&rig, s[i].ended);
                ASSERT_EQ(s[i].fault, FAULT_NONE);
                agent_call_free(s[i].call);
        }
        ASSERT_EQ(rig.n_opened, 1);
        rig_done(&rig);
}

TEST(freed_in_a_callback) {
        Seen s = { .free_at_data = true };
        Rig rig;

        rig_init(&rig, NULL);
        call(&rig, &s, "PUT", "/x", true);
        RUN_UNTIL(&rig, s.n_writable > 0);
        ASSERT_EQ(agent_call_write(s.call, "hello", 5), 5);
        RUN_UNTIL(&rig, s.n == 5);
        ASSERT_NULL(s.call);
        RUN_UNTIL(&rig, fake_agent_n_open(rig.agent) == 0);
        ASSERT_EQ(fake_agent_n_resets(rig.agent), 1);
        rig_done(&rig);
}

TEST(failures) {
        Seen s = {}, t = {};
        Rig rig;

        rig_init(&rig, NULL);
        rig.refuse = true;
        call(&rig, &s, "GET", "/x", false);
        RUN_UNTIL(&rig, s.fault != FAULT_NONE);
        ASSERT_EQ(s.fault, FAULT_AGENT);
        ASSERT_STREQ(s.message, "refused");
        agent_call_free(s.call);

        /* the capsule ends, with a call on its way */
        rig.refuse = false;
        call(&rig, &t, "PUT", "/x", true);
        RUN_UNTIL(&rig, t.status == 200);
        ASSERT_EQ(channel_table_size(rig.channels), 1);
        channel_drop(rig.channels, "cl-x");
        ASSERT_EQ(channel_table_size(rig.channels), 0);
        ASSERT_EQ(t.fault, FAULT_AGENT);
        agent_call_free(t.call);
        rig_done(&rig);
}

/* Processes. */

typedef struct Run {
        ProcessCall *process;
        uint32_t pid;
        char tag[64];
        size_t n[2], n_held;
        char out[64];
        bool hold, exited;
        int exit_code;
        FaultCode fault;
} Run;

static void on_started(ProcessCall *p, const ProcessStarted *started, void *userdata) {
        Run *r = userdata;

        r->pid = started->pid;
        (void) snprintf(r->tag, sizeof(r->tag), "%s", started->tag);
}

static bool on_output(ProcessCall *p, FrameType type, const void *data, size_t n, void *userdata) {
        Run *r = userdata;
        size_t *have = &r->n[type == FRAME_STDERR];

        if (type != FRAME_STDERR && *have + n < sizeof(r->out))
                memcpy(r->out + *have, data, n);
        *have += n;
        if (r->hold)
                r->n_held += n;
        return !r->hold;
}

static void on_exit_(ProcessCall *p, const ProcessExit *e, void *userdata) {
        Run *r = userdata;

        r->exited = true;
        r->exit_code = e->exit_code;
        r->process = process_call_free(r->process);
}

static void on_process_failed(ProcessCall *p, const Fault *fault, void *userdata) {
        ((Run *) userdata)->fault = fault->code;
}

static const ProcessHandlers process_handlers = {
        .on_started = on_started,
        .on_output = on_output,
        .on_exit = on_exit_,
        .on_failed = on_process_failed,
};

static void start(Rig *rig, Run *r, const char *spec, bool with_input) {
        ASSERT_OK(channel_start_process(rig->channels, &capsule, &key, spec, with_input, &process_handlers,
                                        r, &r->process));
}

TEST(process_runs) {
        Run r = {};
        Rig rig;

        rig_init(&rig, NULL);
        start(&rig, &r, "{\"cmd\":\"echo\",\"args\":[\"a\",\"b\"]}", false);
        RUN_UNTIL(&rig, r.exited);
        ASSERT_STREQ(r.out, "a b\n");
        ASSERT_EQ(r.n[1], 4);
        ASSERT_EQ(r.exit_code, 0);
        ASSERT_TRUE(r.pid > 0 && startswith(r.tag, "proc-"));
        RUN_UNTIL(&rig, fake_agent_n_open(rig.agent) == 0);
        ASSERT_EQ(fake_agent_n_resets(rig.agent), 0);
        rig_done(&rig);
}

TEST(process_with_input) {
        Run r = {};
        Rig rig;

        rig_init(&rig, NULL);
        start(&rig, &r, "{\"cmd\":\"cat\"}", true);
        ASSERT_EQ(process_call_input(r.process, "x", 1), 0); /* not sent yet */
        ASSERT_EQ(process_call_resize(r.process, 80, 24), -EAGAIN);
        RUN_UNTIL(&rig, r.pid > 0);
        ASSERT_EQ(process_call_input(r.process, "hello", 5), 5);
        ASSERT_OK(process_call_resize(r.process, 80, 24));
        RUN_UNTIL(&rig, r.n[0] == 5);
        ASSERT_STREQ(r.out, "hello");

        /* what was typed right before the end still arrives */
        ASSERT_EQ(process_call_input(r.process, "more", 4), 4);
        r.process = process_call_linger(r.process, rig.event);
        RUN_UNTIL(&rig, fake_agent_n_open(rig.agent) == 0);
        ASSERT_EQ(fake_agent_n_resets(rig.agent), 1);
        rig_done(&rig);
}

TEST(unread_output_stops_the_process) {
        Run r = { .hold = true };
        Rig rig;
        size_t before;

        rig_init(&rig, NULL);
        start(&rig, &r, "{\"cmd\":\"yes\"}", false);
        RUN_UNTIL(&rig, r.n[0] > 200000);
        do {
                before = r.n[0];
                for (unsigned i = 0; i < 50; i++)
                        (void) sd_event_run(rig.event, 0);
        } while (r.n[0] > before);
        ASSERT_TRUE(r.n[0] <= H2_WINDOW_BYTES + KIB);
        r.hold = false;
        process_call_consume(r.process, r.n_held);
        RUN_UNTIL(&rig, r.n[0] > 4 * MIB);
        process_call_free(r.process);
        RUN_UNTIL(&rig, fake_agent_n_open(rig.agent) == 0);
        rig_done(&rig);
}

TEST(process_failures) {
        static const struct {
                const char *spec;
                FaultCode fault;
        } cases[] = {
                { "{\"cmd\":\"no-cwd\"}", FAULT_INVALID_ARGS }, { "{\"cmd\":\"reset\"}", FAULT_AGENT },
                { "{\"cmd\":\"lie\"}", FAULT_AGENT },           { "{\"cmd\":\"garbage\"}", FAULT_AGENT },
                { "{\"cmd\":\"drop\"}", FAULT_AGENT },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Run r = {};
                Rig rig;

                rig_init(&rig, NULL);
                start(&rig, &r, cases[i].spec, false);
                RUN_UNTIL(&rig, r.fault != FAULT_NONE || r.exited);
                if (r.fault != cases[i].fault)
                        fail_msg("'%s': fault %i", cases[i].spec, r.fault);
                process_call_free(r.process);
                rig_done(&rig);
        }
}

TEST(paths) {
        _cleanup_free_ char *path = process_path("a/b c?", "/signal?signal=9");

        ASSERT_STREQ(path, "/processes/a%2Fb%20c%3F/signal?signal=9");
}
