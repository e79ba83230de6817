/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A pool of network slots behind a socket, for tests that are written in another language. Works in the
 * network namespace it is started in.
 *
 * slot-tool SOCKET-FD [READY [MAX [POOL]]]
 *
 * Requests are datagrams (SOCK_SEQPACKET), answers too: "claim" → "ok INDEX ADDRESS" with the fds of
 * namespace and tap; "adopt INDEX" → "ok INDEX ADDRESS"; "release INDEX"; "start"; "count" → "ok READY
 * USED"; a failure → "error ERRNO TEXT". Ends at EOF.
 */

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/host/slot.h"

#define SLOTS_MAX 1024U

typedef struct Tool {
        sd_event *event;
        SlotPool *pool;
        Slot *slots[SLOTS_MAX];
} Tool;

static void answer(int fd, const char *text, const int *fds, size_t n_fds) {
        struct iovec iov = { .iov_base = (char *) text, .iov_len = strlen(text) };
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(2 * sizeof(int))];
        } control = {};
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds > 0) {
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                control.header = (struct cmsghdr) {
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                        .cmsg_len = CMSG_LEN(n_fds * sizeof(int)),
                };
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
        }
        (void) sendmsg(fd, &message, MSG_NOSIGNAL);
}

static void answer_slot(int fd, Slot *s) {
        char text[128];
        int fds[] = { slot_netns_fd(s), slot_take_tap_fd(s) };

        (void) snprintf(text, sizeof(text), "ok %u %s", slot_index(s), slot_address(s));
        answer(fd, text, fds, fds[0] >= 0 && fds[1] >= 0 ? 2 : 0);
        (void) close_fd(fds[1]);
}

static Slot** tool_find(Tool *t, unsigned index) {
        for (size_t i = 0; i < SLOTS_MAX; i++)
                if (index > 0 ? t->slots[i] && slot_index(t->slots[i]) == index : !t->slots[i])
                        return &t->slots[i];
        return NULL;
}

static int tool_command(Tool *t, int fd, const char *command, Fault *fault) {
        uint32_t index = 0;
        const char *argument;
        char text[128];
        Slot **place;
        int r;

        if (streq(command, "start")) {
                r = slot_pool_start(t->pool, fault);
        } else if (streq(command, "count")) {
                (void) snprintf(text, sizeof(text), "ok %u %u", slot_pool_n_ready(t->pool),
                                slot_pool_n_used(t->pool));
                answer(fd, text, NULL, 0);
                return 0;
        } else if ((argument = startswith(command, "release ")) && parse_u32(argument, &index) >= 0 &&
                   index > 0) {
                place = tool_find(t, index);
                if (!place)
                        return -ENOENT;
                *place = slot_release(*place);
                r = 0;
        } else if (streq(command, "claim") || (argument = startswith(command, "adopt "))) {
                place = tool_find(t, 0);
                if (!place)
                        return -ENOBUFS;
                if (command[0] == 'c')
                        r = slot_pool_claim(t->pool, place, fault);
                else
                        r = parse_u32(argument, &index) < 0 ? -EINVAL
                                                            : slot_pool_adopt(t->pool, index, place);
                if (r >= 0) {
                        answer_slot(fd, *place);
                        return 0;
                }
        } else
                r = -EINVAL;

        if (r >= 0)
                answer(fd, "ok", NULL, 0);
        return r;
}

static int on_request(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Tool *t = userdata;
        char command[128], text[1024];
        ssize_t n;
        int r;

        n = recv(fd, command, sizeof(command) - 1, MSG_DONTWAIT);
        if (n <= 0)
                return sd_event_exit(t->event, EXIT_SUCCESS);

        command[n] = '\0';
        r = tool_command(t, fd, command, &fault);
        if (r < 0) {
                (void) snprintf(text, sizeof(text), "error %i %s", r, strempty(fault.message));
                answer(fd, text, NULL, 0);
        }
        return 0;
}

int main(int argc, char *argv[]) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        SlotPoolConfig config = { .address_pool = argc > 4 ? argv[4] : NULL };
        uint32_t fd;
        Tool t = {};
        int r;

        log_open("slot-tool");
        if (argc < 2 || parse_u32(argv[1], &fd) < 0 ||
            (argc > 2 && parse_u32(argv[2], &config.n_ready) < 0) ||
            (argc > 3 && parse_u32(argv[3], &config.n_max) < 0)) {
                log_error("Usage: %s SOCKET-FD [READY [MAX [POOL]]]", argv[0]);
                return 2;
        }

        r = sd_event_new(&t.event);
        if (r >= 0)
                r = slot_pool_new(t.event, &config, &t.pool, &fault);
        if (r >= 0)
                r = sd_event_add_io(t.event, NULL, (int) fd, EPOLLIN, on_request, &t);
        if (r < 0) {
                (void) log_error_errno(r, "Failed to make the pool: %s", strempty(fault.message));
                return EXIT_FAILURE;
        }

        answer((int) fd, "ready", NULL, 0);
        r = sd_event_loop(t.event);
        for (size_t i = 0; i < SLOTS_MAX; i++)
                t.slots[i] = slot_release(t.slots[i]);
        t.pool = slot_pool_free(t.pool);
        t.event = sd_event_unref(t.event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
