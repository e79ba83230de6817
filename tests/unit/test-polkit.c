/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Authorization on a private dbus-daemon: the service and a fake polkit live in this process, callers are
 * children with another uid. The fake answers when it is told to, so that everything can happen in between.
 */

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/host/polkit.h"
#include "shared/event.h"
#include "tests/unit/test.h"

#define SERVICE   "dev.wrenn.Test"
#define STRANGER  65534 /* nobody: dbus-daemon wants a user it can look up */
#define TRUSTED   1     /* daemon */
#define WAIT_USEC (20 * USEC_PER_SEC)
#define ASKED_MAX 256U

typedef struct Rig {
        char dir[40];
        char address[128];
        pid_t daemon;
        sd_event *event;
        sd_bus *bus;  /* the service's */
        sd_bus *fake; /* polkit's */
        Polkit *polkit;
        sd_bus_message *asked[ASKED_MAX];
        char cancellations[ASKED_MAX][32]; /* what each is cancelled by */
        char cancelled[32];                /* the last one that was */
        unsigned n_asked, n_allowed, n_cancelled;
        char action[64];
        const char *detail;
        char seen_detail[64];
} Rig;

static int method_do(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Rig *g = userdata;
        const char *const details[] = {
                "capsule", g->detail, "empty", "", "absent", NULL, "verb", "do", NULL
        };
        uid_t uid = 0;
        int r;

        r = polkit_authorize(g->polkit, m, "dev.wrenn.capsules1.manage", details, &uid, &fault);
        if (r < 0)
                return sd_bus_error_set(error, fault_bus_name(fault.code), fault.message);
        if (r == 0)
                return 1;
        g->n_allowed++;
        return sd_bus_reply_method_return(m, "u", (uint32_t) uid);
}

static const sd_bus_vtable service_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("Do", "", "u", method_do, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

static int method_check(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *kind, *key, *name, *action, *k, *v;
        Rig *g = userdata;

        assert(sd_bus_message_read(m, "(sa{sv})s", &kind, 1, &key, "s", &name, &action) >= 0);
        assert(streq(kind, "system-bus-name") && streq(key, "name") && *name == ':');
        (void) snprintf(g->action, sizeof(g->action), "%s", action);
        assert(sd_bus_message_enter_container(m, 'a', "{ss}") >= 0);
        while (sd_bus_message_read(m, "{ss}", &k, &v) > 0) {
                assert(!streq(k, "empty") && !streq(k, "absent"));
                if (streq(k, "capsule"))
                        (void) snprintf(g->seen_detail, sizeof(g->seen_detail), "%s", v);
        }
        assert(sd_bus_message_exit_container(m) >= 0);
        assert(g->n_asked < ASKED_MAX);
        assert(sd_bus_message_read(m, "us", NULL, &v) >= 0 && *v);
        (void) snprintf(g->cancellations[g->n_asked], sizeof(g->cancellations[0]), "%s", v);
        g->asked[g->n_asked++] = sd_bus_message_ref(m);
        return 1;
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *cancellation;
        Rig *g = userdata;

        assert(sd_bus_message_read(m, "s", &cancellation) >= 0);
        (void) snprintf(g->cancelled, sizeof(g->cancelled), "%s", cancellation);
        g->n_cancelled++;
        return sd_bus_reply_method_return(m, NULL);
}

static const sd_bus_vtable polkit_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("CheckAuthorization", "(sa{sv})sa{ss}us", "(bba{ss})", method_check,
                      SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD("CancelCheckAuthorization", "s", "", method_cancel, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

static void answer(Rig *g, unsigned i, bool allowed) {
        ASSERT_TRUE(sd_bus_reply_method_return(g->asked[i], "(bba{ss})", allowed, 0, 0) >= 0);
        g->asked[i] = sd_bus_message_unref(g->asked[i]);
}

static bool start_daemon(Rig *g) {
        static const char config[] =
                        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" "
                        "\"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig>"
                        "<listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth><policy context=\"default\">"
                        "<allow user=\"*\"/><allow own=\"*\"/><allow send_type=\"method_call\"/>"
                        "<allow send_type=\"signal\"/><allow send_requested_reply=\"true\" send_type=\"method_return\"/>"
                        "<allow send_requested_reply=\"true\" send_type=\"error\"/><allow receive_type=\"method_call\"/>"
                        "<allow receive_type=\"method_return\"/><allow receive_type=\"error\"/>"
                        "<allow receive_type=\"signal\"/></policy></busconfig>";
        _cleanup_close_ int dir_fd = open(g->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_free_ char *path = strjoin(g->dir, "/bus.conf"), *text = asprintf_null(config, g->dir);

        ASSERT_EQ(write_file_atomic_at(dir_fd, "bus.conf", text, strlen(text), 0644), 0);
        (void) snprintf(g->address, sizeof(g->address), "unix:path=%s/bus", g->dir);

        g->daemon = fork();
        if (g->daemon == 0) {
                _cleanup_free_ char *option = strjoin("--config-file=", path);

                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) execlp("dbus-daemon", "dbus-daemon", "--nofork", option, NULL);
                _exit(127);
        }

        for (unsigned i = 0; i < 500; i++) {
                _cleanup_free_ char *bus_socket = strjoin(g->dir, "/bus");

                if (access(bus_socket, F_OK) >= 0)
                        return true;
                if (waitpid(g->daemon, NULL, WNOHANG) == g->daemon)
                        return false;
                (void) usleep(10000);
        }
        return false;
}

static sd_bus* connect_bus(Rig *g, const char *name) {
        sd_bus *bus = NULL;

        ASSERT_EQ(sd_bus_new(&bus), 0);
        ASSERT_TRUE(sd_bus_set_address(bus, g->address) >= 0);
        ASSERT_TRUE(sd_bus_set_bus_client(bus, true) >= 0);
        ASSERT_TRUE(sd_bus_start(bus) >= 0);
        ASSERT_TRUE(sd_bus_request_name(bus, name, 0) >= 0);
        ASSERT_TRUE(sd_bus_attach_event(bus, g->event, PRIORITY_CLIENT) >= 0);
        return bus;
}

static void up(Rig *g) {
        *g = (Rig) { .dir = "/tmp/test-polkit-XXXXXX", .detail = "cl-x" };
        if (getuid() != 0)
                skip();
        ASSERT_NOT_NULL(mkdtemp(g->dir));
        ASSERT_EQ(chmod(g->dir, 0755), 0);
        if (!start_daemon(g)) {
                (void) remove_tree_at(AT_FDCWD, g->dir);
                skip();
        }

        ASSERT_EQ(sd_event_new(&g->event), 0);
        g->bus = connect_bus(g, SERVICE);
        g->fake = connect_bus(g, "org.freedesktop.PolicyKit1");
        ASSERT_EQ(polkit_new(g->bus, TRUSTED, &g->polkit), 0);
        ASSERT_TRUE(sd_bus_add_object_vtable(g->bus, NULL, "/test", SERVICE, service_vtable, g) >= 0);
        ASSERT_TRUE(sd_bus_add_object_vtable(g->fake, NULL, "/org/freedesktop/PolicyKit1/Authority",
                                             "org.freedesktop.PolicyKit1.Authority", polkit_vtable, g) >= 0);
}

static void down(Rig *g) {
        for (unsigned i = 0; i < g->n_asked; i++)
                sd_bus_message_unref(g->asked[i]);
        g->polkit = polkit_free(g->polkit);
        sd_bus_flush_close_unref(g->bus);
        sd_bus_flush_close_unref(g->fake);
        sd_event_unref(g->event);
        (void) kill(g->daemon, SIGKILL);
        (void) waitpid(g->daemon, NULL, 0);
        ASSERT_EQ(remove_tree_at(AT_FDCWD, g->dir), 0);
}

/* A caller: exit status 0 allowed, 1 denied, 2 too many, 4 timed out, 3 anything else. n: calls at once;
 * more than one: it stays. */
static pid_t call(Rig *g, uid_t uid, unsigned n) {
        sd_bus *bus = NULL;
        pid_t pid;

        pid = fork();
        if (pid != 0)
                return pid;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void) close_range(3, ~0U, 0);
        if (setresuid(uid, uid, uid) < 0 || sd_bus_new(&bus) < 0 ||
            sd_bus_set_address(bus, g->address) < 0 || sd_bus_set_bus_client(bus, true) < 0 ||
            sd_bus_start(bus) < 0)
                _exit(3);
        for (unsigned i = 1; i < n; i++)
                if (sd_bus_call_method_async(bus, NULL, SERVICE, "/test", SERVICE, "Do", NULL, NULL, NULL) <
                    0)
                        _exit(3);
        for (;;) {
                _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
                int r = sd_bus_call_method(bus, SERVICE, "/test", SERVICE, "Do", &error, NULL, NULL);

                if (n > 1)
                        (void) pause(); /* its calls live as long as it */
                if (r >= 0)
                        _exit(0);
                if (sd_bus_error_has_name(&error, fault_bus_name(FAULT_ACCESS_DENIED)))
                        _exit(1);
                if (sd_bus_error_has_name(&error, fault_bus_name(FAULT_NO_CAPACITY)))
                        _exit(2);
                _exit(sd_bus_error_has_name(&error, fault_bus_name(FAULT_TIMEOUT)) ? 4 : 3);
        }
}

static void turn_until(Rig *g, const unsigned *counter, unsigned value) {
        uint64_t end = now_usec(CLOCK_MONOTONIC) + WAIT_USEC;

        while (*counter < value && now_usec(CLOCK_MONOTONIC) < end)
                ASSERT_TRUE(sd_event_run(g->event, 20 * USEC_PER_MSEC) >= 0);
        ASSERT_TRUE(*counter >= value);
}

static int wait_for(Rig *g, pid_t pid) {
        uint64_t end = now_usec(CLOCK_MONOTONIC) + WAIT_USEC;
        int status = 0;

        while (waitpid(pid, &status, WNOHANG) == 0) {
                ASSERT_TRUE(now_usec(CLOCK_MONOTONIC) < end);
                ASSERT_TRUE(sd_event_run(g->event, 20 * USEC_PER_MSEC) >= 0);
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

/* Lets the loop fall idle, which is when unfetched answers go. */
static void settle(Rig *g) {
        while (sd_event_run(g->event, 100 * USEC_PER_MSEC) > 0)
                ;
}

TEST(root_and_the_trusted_are_not_asked) {
        Rig g;

        up(&g);
        ASSERT_EQ(wait_for(&g, call(&g, 0, 1)), 0);
        ASSERT_EQ(wait_for(&g, call(&g, TRUSTED, 1)), 0);
        ASSERT_EQ(g.n_asked, 0);
        settle(&g);
        ASSERT_EQ(polkit_n_pending(g.polkit), 0);
        down(&g);
}

TEST(others_are) {
        Rig g;
        pid_t pid;

        up(&g);
        for (unsigned allowed = 0; allowed < 2; allowed++) {
                pid = call(&g, STRANGER, 1);
                turn_until(&g, &g.n_asked, allowed + 1);
                ASSERT_TRUE(streq(g.action, "dev.wrenn.capsules1.manage"));
                ASSERT_TRUE(streq(g.seen_detail, "cl-x"));
                ASSERT_EQ(g.n_allowed, 0);
                answer(&g, allowed, allowed);
                ASSERT_EQ(wait_for(&g, pid), allowed ? 0 : 1);
        }
        ASSERT_EQ(g.n_allowed, 1);
        settle(&g);
        ASSERT_EQ(polkit_n_pending(g.polkit), 0);
        down(&g);
}

TEST(the_question_must_stay_the_same) {
        Rig g;
        pid_t pid;

        up(&g);
        pid = call(&g, STRANGER, 1);
        turn_until(&g, &g.n_asked, 1);
        g.detail = "cl-y";
        answer(&g, 0, true);
        ASSERT_EQ(wait_for(&g, pid), 1);
        ASSERT_EQ(g.n_allowed, 0);
        down(&g);
}

TEST(callers_that_leave) {
        Rig g;

        up(&g);
        for (unsigned i = 0; i < 20; i++) {
                pid_t pid = call(&g, STRANGER, 1);

                turn_until(&g, &g.n_asked, i + 1);
                ASSERT_EQ(kill(pid, SIGKILL), 0);
                ASSERT_EQ(wait_for(&g, pid), 99);
                turn_until(&g, &g.n_cancelled, i + 1);
                ASSERT_STREQ(g.cancelled, g.cancellations[i]);
                ASSERT_EQ(polkit_n_pending(g.polkit), 0);
                if (i % 2)
                        answer(&g, i, true); /* too late: nobody listens */
                settle(&g);
        }
        ASSERT_EQ(g.n_allowed, 0);
        down(&g);
}

TEST(polkit_that_leaves) {
        Rig g;
        pid_t pid;

        up(&g);
        pid = call(&g, STRANGER, 1);
        turn_until(&g, &g.n_asked, 1);
        g.asked[0] = sd_bus_message_unref(g.asked[0]);
        sd_bus_close(g.fake);
        ASSERT_EQ(wait_for(&g, pid), 4);

        /* and one that is not there at all */
        ASSERT_EQ(wait_for(&g, call(&g, STRANGER, 1)), 1);
        ASSERT_EQ(g.n_allowed, 0);
        settle(&g);
        ASSERT_EQ(polkit_n_pending(g.polkit), 0);
        down(&g);
}

TEST(pending_is_bounded) {
        Rig g;
        pid_t pid;

        up(&g);
        pid = call(&g, STRANGER, BUS_PENDING_PER_UID_MAX + 8);
        turn_until(&g, &g.n_asked, BUS_PENDING_PER_UID_MAX);
        settle(&g);
        ASSERT_EQ(g.n_asked, BUS_PENDING_PER_UID_MAX); /* the others were refused */
        ASSERT_EQ(polkit_n_pending(g.polkit), BUS_PENDING_PER_UID_MAX);
        for (unsigned i = 0; i < g.n_asked; i++)
                answer(&g, i, true);
        settle(&g);
        ASSERT_EQ(polkit_n_pending(g.polkit), 0);
        (void) kill(pid, SIGKILL);
        (void) wait_for(&g, pid);
        down(&g);
}

TEST(free_with_open_questions) {
        Rig g;
        pid_t pid;

        up(&g);
        pid = call(&g, STRANGER, 3);
        turn_until(&g, &g.n_asked, 3);
        settle(&g);
        ASSERT_EQ(polkit_n_pending(g.polkit), 3);
        ASSERT_EQ(kill(pid, SIGKILL), 0);
        ASSERT_EQ(waitpid(pid, NULL, 0), pid);
        down(&g);
}
