/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <string.h>

#include "agent/link.h"
#include "agent/request.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "shared/h2.h"
#include "shared/protocol.h"

#define LINK_READ_BYTES (64 * KIB)
#define LINK_READS_MAX  4U /* buffers in one turn, so that processes get their turn */
/* Edge-triggered: a port without a peer reports a hang-up for as long as that lasts. EPOLLOUT only while
 * there is something to write, lest every write wakes us once more. */
#define LINK_EVENTS (EPOLLIN | EPOLLET)

/* The client connection preface, RFC 9113 §3.4. */
static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_LEN     (sizeof(preface) - 1)
#define PREFACE_OVERLAP 10U /* bytes up to the second 'P' */

struct Link {
        Agent *agent;
        int fd;
        LoopSource *source;
        H2Session *session; /* NULL: waiting for one */
        size_t n_preface;   /* bytes of the preface seen while waiting */
        bool ready_due;     /* AGENT_READY_BYTE is to be written */
        const uint8_t *out; /* weak: of the session, what is yet to be written of its last output */
        size_t n_out;
        uint8_t in[LINK_READ_BYTES];
};

static int port_find(char **ret) {
        DIR *dir = opendir("/sys/class/virtio-ports");
        struct dirent *entry;
        int r = -ENODEV;

        if (!dir)
                return -errno;

        while (r == -ENODEV && (entry = readdir(dir))) {
                _cleanup_free_ char *path = strjoin(entry->d_name, "/name"), *name = NULL;

                if (entry->d_name[0] == '.' || !path || read_file_at(dirfd(dir), path, 256, &name, NULL) < 0)
                        continue;
                name[strcspn(name, "\n")] = '\0';
                if (!streq(name, AGENT_PORT_NAME))
                        continue;

                *ret = strjoin("/dev/", entry->d_name);
                r = *ret ? 0 : -ENOMEM;
        }

        (void) closedir(dir);
        return r;
}

int link_open_port(void) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + LINK_PORT_WAIT_USEC;

        for (;;) {
                _cleanup_free_ char *path = NULL;
                int fd, r;

                r = port_find(&path);
                if (r >= 0) {
                        fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
                        if (fd >= 0)
                                return fd;
                        r = -errno;
                }
                if (now_usec(CLOCK_MONOTONIC) >= until)
                        return r;

                (void) usleep(1000);
        }
}

/* Forgets the session, if there is one, and offers the next. */
static void link_wait(Link *l) {
        l->session = h2_session_free(l->session);
        l->n_preface = 0;
        l->n_out = 0;
        l->ready_due = true;
}

static int link_begin(Link *l) {
        /* processes that do not read their input are not to hold up the others */
        static const H2Limits limits = { .windows = H2_STREAMS_MAX };
        int r;

        r = h2_session_new(/* server= */ true, &request_handlers, l->agent, &limits, &l->session);
        if (r < 0)
                return r;

        return h2_session_receive(l->session, preface, PREFACE_LEN);
}

/*
 * Looks for the preface. A peer that is not sure whether we listen sends AGENT_READY_BYTEs: a session breaks
 * on them, and while waiting they are answered. The number of bytes done with; all of them as long as there
 * is no session.
 */
static size_t link_search(Link *l, const uint8_t *data, size_t n) {
        for (size_t i = 0; i < n; i++) {
                /* Where the match breaks: of "PRI * HTTP" the last byte may be the first of another, else
                 * nothing is left. */
                while (l->n_preface > 0 && data[i] != (uint8_t) preface[l->n_preface])
                        l->n_preface = l->n_preface == PREFACE_OVERLAP ? 1 : 0;
                if (data[i] == (uint8_t) preface[l->n_preface])
                        l->n_preface++;
                else if (data[i] == AGENT_READY_BYTE)
                        l->ready_due = true;

                if (l->n_preface == PREFACE_LEN) {
                        if (link_begin(l) < 0)
                                link_wait(l);
                        return i + 1;
                }
        }

        return n;
}

static void link_receive(Link *l, const uint8_t *data, size_t n) {
        while (n > 0) {
                size_t done;
                int r;

                if (!l->session) {
                        done = link_search(l, data, n);
                        data += done;
                        n -= done;
                        continue;
                }

                r = h2_session_receive(l->session, data, n);
                if (r < 0) {
                        log_debug_errno(r, "Control stream broken, waiting for the next: %m");
                        link_wait(l);
                }
                return;
        }
}

/*
 * Fills the buffer as far as there is something. A virtio-serial port gives a page at most with each read,
 * and what is made of small pieces costs more than the reads. The number of bytes, 0 when the peer is gone;
 * -EAGAIN, -errno. *ret_more: there may be more.
 */
static ssize_t link_read(Link *l, bool *ret_more) {
        size_t n = 0;

        while (n < sizeof(l->in)) {
                ssize_t k = read(l->fd, l->in + n, sizeof(l->in) - n);

                if (k > 0) {
                        n += (size_t) k;
                        continue;
                }
                if (k < 0 && errno == EINTR)
                        continue;
                if (n == 0)
                        return k < 0 ? -errno : 0;
                if (k < 0 && errno == EAGAIN)
                        return (ssize_t) n;
                break; /* the next read says it again */
        }

        *ret_more = true;
        return (ssize_t) n;
}

static void on_port(uint32_t events, void *userdata) {
        Link *l = userdata;

        for (unsigned i = 0; i < LINK_READS_MAX; i++) {
                bool more = false;
                ssize_t n = link_read(l, &more);

                if (n == -EAGAIN)
                        return;
                if (n <= 0) { /* the peer is gone; the port stays and tells when it is back */
                        if (l->session || l->n_preface > 0 || !l->ready_due)
                                link_wait(l);
                        if (l->agent->identity.detached) /* a socket does not come back */
                                loop_stop(l->agent->loop);
                        return;
                }

                link_receive(l, l->in, (size_t) n);
                if (!more)
                        return;
        }

        loop_source_again(l->source);
}

/* Makes sure that n_out says whether there is something to send. */
static void link_collect(Link *l) {
        static const uint8_t ready = AGENT_READY_BYTE;
        const void *data;
        int r;

        if (l->n_out > 0)
                return;
        if (l->ready_due) {
                l->ready_due = false;
                l->out = &ready;
                l->n_out = 1;
                return;
        }
        if (!l->session)
                return;

        r = h2_session_output(l->session, &data, &l->n_out);
        if (r < 0) {
                log_debug_errno(r, "Control stream broken, waiting for the next: %m");
                link_wait(l);
                return;
        }
        l->out = data;
}

void link_flush(Link *l) {
        for (;;) {
                ssize_t n;

                link_collect(l);
                if (l->n_out == 0 && !l->ready_due) {
                        (void) loop_source_set_events(l->source, LINK_EVENTS);
                        return;
                }
                if (l->n_out == 0)
                        continue;

                n = write(l->fd, l->out, l->n_out);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) { /* full, or nobody there: the port tells when that changes */
                        (void) loop_source_set_events(l->source, LINK_EVENTS | EPOLLOUT);
                        return;
                }
                l->out += n;
                l->n_out -= (size_t) n;
        }
}

bool link_is_flushed(const Link *l) {
        return l->n_out == 0 && !(l->session && h2_session_want_write(l->session));
}

int link_new(Agent *agent, int fd, Link **ret) {
        _cleanup_(link_freep) Link *l = NULL;
        int r;

        l = malloc(sizeof(Link));
        if (!l)
                return -ENOMEM;

        l->agent = agent;
        l->fd = -EBADF;
        l->source = NULL;
        l->session = NULL;
        l->out = NULL;
        l->n_preface = l->n_out = 0;
        l->ready_due = true;

        r = loop_add(agent->loop, fd, LINK_EVENTS, on_port, l, &l->source);
        if (r < 0)
                return r;

        l->fd = fd;
        *ret = TAKE_PTR(l);
        return 0;
}

Link* link_free(Link *l) {
        if (!l)
                return NULL;

        l->source = loop_source_free(l->source);
        l->session = h2_session_free(l->session);
        (void) close_fd(l->fd);
        free(l);
        return NULL;
}
