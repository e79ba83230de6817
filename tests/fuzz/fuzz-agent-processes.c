/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A client of the agent that says anything to /processes: specs, typed frames, attaches, signals, sizes,
 * ends and resets in any order, and children that write, read and end when they like. The agent's own
 * pipes, terminals, loop and HTTP/2 are real; only its children are played here (spawn_process() is ours, by
 * the linker so are kill() and waitpid()) and the time. Each operation: [what and to which stream or child]
 * [argument] bytes….
 */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "agent/agent.h"
#include "agent/request.h"
#include "agent/spawn.h"
#include "basic/fd.h"
#include "basic/strings.h"
#include "shared/protocol.h"
#include "tests/fuzz/fuzz.h"

#define STREAMS   8U
#define CHILDREN  8U
#define FIRST_PID (1 << 22) /* the kernel never gives such a number */

typedef struct Child {
        int fds[3];
        bool alive, ended; /* ended: waitpid(2) will tell */
        bool killed;
        bool left; /* a child of its own holds the fds */
} Child;

typedef struct Peer {
        H2Stream *stream;
        FrameDecoder decoder;
        bool hold;   /* gives no credit back */
        bool frames; /* the answer is frames, if it is a good one */
        unsigned n_started, n_exits;
} Peer;

typedef struct World {
        Agent agent;
        H2Session *server, *client;
        Peer peers[STREAMS];
        LoopSource *turn_source;
        int turn_fd;
} World;

static Child children[CHILDREN];
static time_t passed_sec;

int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret) {
        int r = __real_clock_gettime(clock, ret);

        ret->tv_sec += passed_sec;
        return r;
}

/* the children */

void spawn_defaults_init(SpawnDefaults *d) {
        *d = (SpawnDefaults) {};
}

int spawn_process(const SpawnRequest *q, Fault *reterr) {
        const int fds[] = { q->stdin_fd, q->stdout_fd, q->stderr_fd };

        assert(q->argv[0] && q->candidates[0] && q->env[0] && q->cwd[0]);

        for (size_t i = 0; i < CHILDREN; i++) {
                Child *c = &children[i];

                if (c->alive || c->ended || c->left)
                        continue;

                *c = (Child) { .alive = true };
                for (size_t k = 0; k < ELEMENTSOF(fds); k++)
                        c->fds[k] = fcntl(fds[k], F_DUPFD_CLOEXEC, 0);
                return FIRST_PID + (int) i;
        }

        return fault_set(reterr, FAULT_AGENT, "No more children.");
}

static void child_leave(Child *c) {
        close_many(c->fds, ELEMENTSOF(c->fds));
        c->left = false;
}

static void child_end(Child *c, bool killed, bool leave) {
        if (!c->alive)
                return;

        c->alive = false;
        c->ended = c->left = true;
        c->killed = killed;
        if (!leave)
                child_leave(c);
}

int __wrap_kill(pid_t pid, int sig);
int __wrap_kill(pid_t pid, int sig) {
        size_t i = (size_t) ((pid < 0 ? -pid : pid) - FIRST_PID);

        assert(i < CHILDREN && sig >= 0 && sig < _NSIG);

        if (!children[i].alive) {
                errno = ESRCH;
                return -1;
        }

        if (sig == SIGKILL)
                child_end(&children[i], /* killed= */ true, /* leave= */ false);
        return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int options);
pid_t __wrap_waitpid(pid_t pid, int *status, int options) {
        assert(pid == -1 && options == WNOHANG);

        for (size_t i = 0; i < CHILDREN; i++) {
                if (!children[i].ended)
                        continue;

                children[i].ended = false;
                *status = children[i].killed ? SIGKILL : 7 << 8;
                return FIRST_PID + (int) i;
        }

        return 0;
}

/* Without blocking: what a pipe or terminal takes or has just now. */
static void child_io(Child *c, unsigned fd, uint8_t byte, size_t n) {
        uint8_t buffer[4096];

        if ((!c->alive && !c->left) || fcntl(c->fds[fd], F_SETFL, O_NONBLOCK) < 0)
                return;

        memset(buffer, byte, sizeof(buffer));
        for (size_t i = 0; i < n; i += sizeof(buffer))
                if ((fd == 0 ? read(c->fds[0], buffer, sizeof(buffer))
                             : write(c->fds[fd], buffer, MIN(sizeof(buffer), n - i))) <= 0)
                        break;

        /* The flag is the pipe's; our copy is the only one that asks for it. */
        (void) fcntl(c->fds[fd], F_SETFL, 0);
}

/* the client */

static int on_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        Peer *p = userdata;

        assert(n <= FRAME_PAYLOAD_MAX);
        assert(p->n_exits == 0);
        switch (type) {
        case FRAME_STARTED:
                assert(p->n_started++ == 0);
                return 0;
        case FRAME_EXIT:
                p->n_exits++;
                break;
        default:
                assert(type == FRAME_STDOUT || type == FRAME_STDERR || type == FRAME_PTY);
        }

        assert(p->n_started == 1);
        return 0;
}

static void client_headers(H2Stream *st, bool end, void *userdata) {
        Peer *p = h2_stream_userdata(st);

        assert(h2_stream_status(st) == 200 || h2_stream_status(st) == 204 ||
               (h2_stream_status(st) >= 400 && h2_stream_status(st) < 600));
        p->frames = p->frames && h2_stream_status(st) == 200;
}

static void client_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        Peer *p = h2_stream_userdata(st);

        if (p->frames)
                assert(frame_decoder_feed(&p->decoder, data, n, on_frame, p) == 0);
        if (!p->hold)
                h2_stream_consume(st, n);
}

/* An answer of frames that ends in good order has told the exit. */
static void client_end(H2Stream *st, void *userdata) {
        Peer *p = h2_stream_userdata(st);

        assert(!p->frames || p->n_exits == 1);
}

static void client_close(H2Stream *st, uint32_t error, void *userdata) {
        Peer *p = h2_stream_userdata(st);

        frame_decoder_done(&p->decoder);
        *p = (Peer) {};
}

static const H2Handlers client_handlers = {
        .on_headers = client_headers,
        .on_data = client_data,
        .on_end = client_end,
        .on_close = client_close,
};

/* Both ends of the stream, until neither has anything to say. False: one of them broke it. */
static bool exchange(World *w) {
        H2Session *ends[] = { w->client, w->server };

        for (unsigned quiet = 0, i = 0; quiet < 2; i++) {
                const void *data;
                size_t n;

                if (h2_session_output(ends[i % 2], &data, &n) < 0)
                        return false;
                quiet = n == 0 ? quiet + 1 : 0;
                if (n > 0 && h2_session_receive(ends[(i + 1) % 2], data, n) < 0)
                        return false;
        }

        return true;
}

static void client_open(World *w, Peer *p, uint8_t argument) {
        static const struct {
                const char *method, *path;
                bool frames;
        } requests[] = {
                { "POST", "/processes", true },
                { "POST", "/processes/a/attach", true },
                { "POST", "/processes/a/attach?tail=0", true },
                { "POST", "/processes/4194304/attach", true },
                { "GET", "/processes/b", true },
                { "GET", "/processes", false },
                { "POST", "/processes/a/signal", false },
                { "POST", "/processes/b/signal?signal=TERM", false },
                { "POST", "/processes/a/resize?cols=7&rows=8", false },
                { "POST", "/processes/4194305/resize?cols=4096&rows=%31", false },
        };
        size_t i = argument % 16 < ELEMENTSOF(requests) ? argument % 16 : 0;

        if (p->stream)
                return;

        *p = (Peer) { .frames = requests[i].frames, .hold = argument & 0x40 };
        if (h2_session_request(w->client, requests[i].method, requests[i].path, NULL, 0,
                               /* end= */ argument & 0x80, p, &p->stream) < 0)
                *p = (Peer) {};
}

static void client_frame(Peer *p, FrameType type, const void *payload, size_t n) {
        uint8_t header[FRAME_HEADER_LEN];

        if (!p->stream || h2_stream_room(p->stream) < sizeof(header) + n)
                return;

        frame_header(header, type, (uint32_t) n);
        (void) h2_stream_write(p->stream, header, sizeof(header));
        (void) h2_stream_write(p->stream, payload, n);
}

static void client_spec(Peer *p, uint8_t argument) {
        char text[256];
        int n;

        n = snprintf(text, sizeof(text),
                     "{\"cmd\":\"x\",\"args\":[\"y\"],\"user\":\"root\",\"tag\":\"%s\",\"stdin\":%s,"
                     "\"on_disconnect\":\"%s\",\"batch\":%s%s%s}",
                     argument & 1   ? "a"
                     : argument & 2 ? "b"
                                    : "",
                     argument & 4 ? "true" : "false", argument & 8 ? "keep" : "kill",
                     argument & 16 ? "true" : "false", argument & 32 ? ",\"pty\":{\"cols\":3}" : "",
                     argument & 64 ? ",\"timeout_usec\":5000000" : "");
        client_frame(p, FRAME_SPEC, text, (size_t) n);
}

/* the agent */

static void on_turn(uint32_t events, void *userdata) {
        loop_stop(userdata);
}

static void turn(World *w) {
        process_table_reap(w->agent.processes);
        (void) loop_run(w->agent.loop);
}

static bool step(World *w, FuzzInput *in) {
        static const FrameType types[] = { FRAME_STDIN, FRAME_STDIN_EOF, FRAME_RESIZE, FRAME_SPEC,
                                           FRAME_STDIN, FRAME_RESIZE,    FRAME_STDOUT, FRAME_EXIT };
        static uint8_t zeros[32 * KIB];
        uint8_t what = fuzz_byte(in), argument = fuzz_byte(in);
        Peer *p = &w->peers[what / 16 % STREAMS];
        Child *c = &children[what / 16 % CHILDREN];
        const uint8_t *data;
        size_t n;

        switch (what % 16) {
        case 0:
                client_open(w, p, argument);
                break;
        case 1:
                client_spec(p, argument);
                break;
        case 2: /* a frame of the input's */
                data = fuzz_bytes(in, argument / 8, &n);
                client_frame(p, types[argument % 8], data, n);
                break;
        case 3: /* bytes that need be no frames */
                data = fuzz_bytes(in, argument, &n);
                if (p->stream)
                        (void) h2_stream_write(p->stream, data, n);
                break;
        case 4: /* much input */
                client_frame(p, FRAME_STDIN, zeros, (size_t) argument * 128);
                break;
        case 5:
                if (p->stream)
                        (void) h2_stream_end(p->stream);
                break;
        case 6:
                if (p->stream)
                        (void) h2_stream_reset(p->stream, H2_CANCEL);
                break;
        case 7:
                child_io(c, argument % 3, argument, (size_t) argument * 64);
                break;
        case 8:
                child_io(c, 1 + argument % 2, argument, 64 * KIB);
                break;
        case 9:
                child_end(c, /* killed= */ false, /* leave= */ argument & 1);
                break;
        case 10:
                passed_sec += argument;
                turn(w);
                break;
        case 11:
                if (c->left)
                        child_leave(c);
                break;
        case 12: /* it reads again */
                p->hold = false;
                if (p->stream)
                        h2_stream_consume(p->stream, SIZE_MAX);
                break;
        default:
                turn(w);
        }

        return exchange(w);
}

static void world_init(World *w) {
        *w = (World) { .turn_fd = eventfd(1, EFD_CLOEXEC) };
        assert(loop_new(&w->agent.loop) >= 0);
        assert(process_table_new(w->agent.loop, &w->agent.processes) >= 0);
        assert(loop_add(w->agent.loop, w->turn_fd, EPOLLIN, on_turn, w->agent.loop, &w->turn_source) >= 0);
        assert(identity_init(&w->agent.identity, /* detached= */ true) >= 0);
        assert(h2_session_new(true, &request_handlers, &w->agent, NULL, &w->server) >= 0);
        assert(h2_session_new(false, &client_handlers, w, NULL, &w->client) >= 0);
        assert(exchange(w));
}

/* Nobody reads or runs any more. */
static void world_done(World *w) {
        w->client = h2_session_free(w->client);
        w->server = h2_session_free(w->server);
        for (size_t i = 0; i < CHILDREN; i++) {
                child_end(&children[i], /* killed= */ true, /* leave= */ true);
                if (children[i].left)
                        child_leave(&children[i]);
        }
        turn(w);
        w->agent.processes = process_table_free(w->agent.processes);
        w->turn_source = loop_source_close(w->turn_source);
        w->agent.loop = loop_free(w->agent.loop);
        identity_done(&w->agent.identity);
        memset(children, 0, sizeof(children));
        passed_sec = 0;
}

static int first_free_fd(void) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        (void) close(fd);
        return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        FuzzInput in = { data, n };
        int before = first_free_fd();
        World w;

        (void) signal(SIGPIPE, SIG_IGN); /* main.c blocks it */
        world_init(&w);
        for (unsigned i = 0; i < 512 && in.n > 0; i++)
                if (!step(&w, &in))
                        break;
        world_done(&w);
        assert(first_free_fd() == before);
        return 0;
}
