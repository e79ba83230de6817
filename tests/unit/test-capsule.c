/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The whole life of capsules against fakes: PID 1, slots, launcher, monitor and VMM are played (tests/fake).
 */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "daemon/core/adopt.h"
#include "daemon/core/capsule-files.h"
#include "daemon/core/job.h"
#include "daemon/core/manager.h"
#include "daemon/core/uid-pool.h"
#include "shared/event.h"
#include "tests/fake/fake-host.h"
#include "tests/unit/test.h"

#define WAIT_USEC (20 * USEC_PER_SEC)

typedef struct Host {
        char base[32];
        sd_event *event;
        Systemd *systemd;
        Manager *manager;
        unsigned n_done, n_adopted, n_removed;
        int result;
        Fault fault;
        unsigned n_exited;
        int exit_code;
        char reason[32];
        unsigned n_entries, n_removed_jobs;
        uint64_t bytes;
} Host;

static void on_process_exited(Capsule *c, uint32_t pid, const char *tag, int code, const char *reason,
                              void *userdata) {
        Host *h = userdata;

        h->n_exited++;
        h->exit_code = code;
}

static void on_removed(Capsule *c, const char *reason, void *userdata) {
        Host *h = userdata;

        (void) snprintf(h->reason, sizeof(h->reason), "%s", reason);
}

static const ManagerEvents events = { .process_exited = on_process_exited, .capsule_removed = on_removed };

static void on_adopted(Manager *m, int r, unsigned n_adopted, unsigned n_removed, void *userdata) {
        Host *h = userdata;

        h->n_done++;
        h->result = r;
        h->n_adopted = n_adopted;
        h->n_removed = n_removed;
}

static void turn_until(Host *h, const unsigned *counter, unsigned value) {
        uint64_t end = now_usec(CLOCK_MONOTONIC) + WAIT_USEC;

        while (*counter < value && now_usec(CLOCK_MONOTONIC) < end)
                ASSERT_TRUE(sd_event_run(h->event, 100 * USEC_PER_MSEC) >= 0);
        ASSERT_TRUE(*counter >= value);
}

/* A Manager as after a start, with the join done. */
static void manager_up(Host *h) {
        char state[64], run[64], cache[64];
        Config config = {};

        (void) snprintf(state, sizeof(state), "%s/state", h->base);
        (void) snprintf(run, sizeof(run), "%s/run", h->base);
        (void) snprintf(cache, sizeof(cache), "%s/cache", h->base);
        fake_vmm_set_directory(SOURCE_DIR "/tests/fake/lib");

        ASSERT_EQ(config_init(&config), 0);
        config.memory_budget_bytes = 3 * GIB;
        config.default_disk_bytes = 64 * MIB;
        ASSERT_EQ(manager_new(h->event, &config,
                              &(ManagerPaths) { .state_dir = state,
                                                .run_dir = run,
                                                .cache_dir = cache,
                                                .lib_dir = "/nonexistent" },
                              &h->manager, &h->fault),
                  0);
        h->manager->systemd = h->systemd;
        h->manager->slots = (SlotPool *) 1;
        manager_set_events(h->manager, &events, h);

        h->n_done = 0;
        ASSERT_EQ(manager_adopt(h->manager, on_adopted, h, &h->fault), 0);
        turn_until(h, &h->n_done, 1);
        ASSERT_EQ(h->result, 0);
        h->n_done = 0;
}

static void manager_down(Host *h) {
        h->manager = manager_free(h->manager);
}

static void put_templates(Host *h) {
        static const char *const names[] = { "good", "no-ready", "start-fails", "crash", "dies", "garbage" };

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                ASSERT_EQ(store_put_template(h->manager->store,
                                             &(TemplateRow) { .id = names[i],
                                                              .name = names[i],
                                                              .type = "base",
                                                              .env = "{}" },
                                             false, &h->fault),
                          0);
}

static void up(Host *h) {
        *h = (Host) { .base = "/tmp/test-capsule-XXXXXX" };
        ASSERT_NOT_NULL(mkdtemp(h->base));
        ASSERT_EQ(sd_event_new(&h->event), 0);
        h->systemd = fake_systemd_new(h->event);
        fake_failure = FAKE_NOTHING;
        manager_up(h);
        put_templates(h);
        manager_down(h); /* templates are loaded at a start */
        manager_up(h);
}

static void down(Host *h) {
        manager_down(h);
        fake_systemd_free(h->systemd);
        h->event = sd_event_unref(h->event);
        fault_done(&h->fault);
        while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
        ASSERT_EQ(remove_tree_at(AT_FDCWD, h->base), 0);
}

static void on_done(Capsule *c, int r, const Fault *fault, void *userdata) {
        Host *h = userdata;

        h->n_done++;
        h->result = r;
        fault_done(&h->fault);
        if (fault)
                (void) fault_set(&h->fault, fault->code, "%s", fault->message);
}

static Capsule* create(Host *h, const char *template) {
        CapsuleSpec spec = { .template = strdup(template) };
        Capsule *c = NULL;

        h->n_done = 0;
        if (capsule_create(h->manager, &spec, on_done, h, &c, &h->fault) < 0)
                fail_msg("%s", h->fault.message);
        return c;
}

static Capsule* create_and_wait(Host *h, const char *template) {
        Capsule *c = create(h, template);

        turn_until(h, &h->n_done, 1);
        return c;
}

static unsigned entries(Host *h, const char *name) {
        _cleanup_free_ char *path = strjoin(h->base, name);
        unsigned n = 0;
        DIR *d;

        d = opendir(path);
        ASSERT_NOT_NULL(d);
        while (readdir(d))
                n++;
        (void) closedir(d);
        return n - 2;
}

/* Nothing of any capsule is left but records. */
static void assert_clean(Host *h) {
        ASSERT_EQ(fake_n_slots, 0);
        ASSERT_EQ(fake_n_units, 0);
        ASSERT_EQ(uid_pool_n_used(h->manager->uids), 0);
        ASSERT_EQ(entries(h, "/run/capsules"), 0);
        ASSERT_EQ(entries(h, "/state/capsules"), 0);
        ASSERT_EQ(h->manager->n_capsules, 0);
        ASSERT_EQ(h->manager->n_running, 0);
        ASSERT_EQ(h->manager->memory_reserved, 0);
        ASSERT_EQ(h->manager->vcpus_reserved, 0);
}

static void destroy_and_wait(Host *h, Capsule *c) {
        int r;

        h->n_done = 0;
        r = capsule_destroy(c, END_USER, on_done, h, &h->fault);
        ASSERT_TRUE(r >= 0);
        if (r == 0)
                turn_until(h, &h->n_done, 1);
        ASSERT_EQ(c->state, CAPSULE_STOPPED);
        assert_clean(h);
}

static void turn_until_stopped(Host *h, Capsule *c) {
        uint64_t end = now_usec(CLOCK_MONOTONIC) + WAIT_USEC;

        while (c->state != CAPSULE_STOPPED && now_usec(CLOCK_MONOTONIC) < end)
                ASSERT_TRUE(sd_event_run(h->event, 100 * USEC_PER_MSEC) >= 0);
        ASSERT_EQ(c->state, CAPSULE_STOPPED);
}

TEST(create_and_destroy) {
        Capsule *c;
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);

        c = create(&h, "good");
        ASSERT_EQ(c->state, CAPSULE_PENDING);
        turn_until(&h, &h.n_done, 1);
        ASSERT_EQ(h.result, 0);
        ASSERT_EQ(c->state, CAPSULE_RUNNING);
        ASSERT_TRUE(streq(c->agent_version, "9.9"));
        ASSERT_TRUE(c->started_usec > 0 && c->monitor_pid > 0 && c->vmm_pid > 0);
        ASSERT_EQ(h.manager->n_running, 1);
        ASSERT_EQ(fake_n_units, 1);
        ASSERT_EQ(capsule_ping(c, &h.fault), 0);

        destroy_and_wait(&h, c);
        ASSERT_TRUE(streq(h.reason, "user"));
        ASSERT_EQ(capsule_destroy(c, END_USER, on_done, &h, &h.fault), 1); /* idempotent */
        ASSERT_EQ(capsule_ping(c, &h.fault), fault_errno(FAULT_INVALID_STATE));
        down(&h);
}

TEST(destroy_at_every_moment) {
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);

        /* n turns of the loop into a create */
        for (unsigned n = 0; n < 12; n++) {
                Capsule *c = create(&h, n % 2 ? "no-ready" : "good");

                for (unsigned i = 0; i < n && c->state != CAPSULE_RUNNING; i++)
                        ASSERT_TRUE(sd_event_run(h.event, 20 * USEC_PER_MSEC) >= 0);

                ASSERT_TRUE(capsule_destroy(c, END_USER, NULL, NULL, &h.fault) >= 0);
                turn_until_stopped(&h, c);
                assert_clean(&h);
                ASSERT_EQ(c->reason, END_USER);
        }
        down(&h);
}

TEST(failures_are_undone) {
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);

        for (FakeFailure f = FAKE_SLOT; f < _FAKE_FAILURE_MAX; f++) {
                CapsuleSpec spec = { .template = strdup("good") };
                Capsule *c = NULL;

                fake_failure = f;
                h.n_done = 0;
                if (capsule_create(h.manager, &spec, on_done, &h, &c, &h.fault) >= 0) {
                        turn_until(&h, &h.n_done, 1);
                        ASSERT_TRUE(h.result < 0);
                        ASSERT_EQ(c->state, CAPSULE_ERROR);
                        ASSERT_NOT_NULL(c->message);
                }
                ASSERT_TRUE(fault_is_set(&h.fault));
                capsule_spec_done(&spec);
                assert_clean(&h);
                fault_done(&h.fault);
        }
        fake_failure = FAKE_NOTHING;
        down(&h);
}

TEST(monitors_that_fail) {
        static const struct {
                const char *template;
                const char *message;
        } cases[] = {
                { "start-fails", "No such machine." },
                { "dies", "exit status 3" },
                { "crash", "ended while it was starting" },
        };
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Capsule *c = create_and_wait(&h, cases[i].template);

                ASSERT_TRUE(h.result < 0);
                ASSERT_EQ(c->state, CAPSULE_ERROR);
                if (!strstr(h.fault.message, cases[i].message))
                        fail_msg("'%s' does not tell '%s'", h.fault.message, cases[i].message);
                assert_clean(&h);
                ASSERT_EQ(capsule_destroy(c, END_USER, on_done, &h, &h.fault), 1);
                ASSERT_EQ(c->state, CAPSULE_STOPPED);
        }
        down(&h);
}

TEST(ends_have_reasons) {
        Capsule *c;
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);

        /* nobody is left to tell why */
        c = create_and_wait(&h, "good");
        ASSERT_EQ(c->state, CAPSULE_RUNNING);
        ASSERT_EQ(kill(c->monitor_pid, SIGKILL), 0);
        turn_until_stopped(&h, c);
        ASSERT_EQ(c->reason, END_LOST);
        assert_clean(&h);

        /* systemctl stop: the guest powers off, but that was asked for */
        c = create_and_wait(&h, "good");
        ASSERT_EQ(capsule_poweroff(c, END_HOST_SHUTDOWN, &h.fault), 0);
        ASSERT_EQ(c->state, CAPSULE_RUNNING);
        turn_until_stopped(&h, c);
        ASSERT_EQ(c->reason, END_HOST_SHUTDOWN);
        ASSERT_TRUE(streq(c->end_status, "exit 0"));
        assert_clean(&h);

        /* one that is not up has nothing to power off */
        c = create(&h, "no-ready");
        ASSERT_EQ(capsule_poweroff(c, END_USER, &h.fault), 0);
        turn_until_stopped(&h, c);
        ASSERT_EQ(c->reason, END_USER);
        assert_clean(&h);
        down(&h);
}

static void on_exec(Capsule *c, int r, const ExecStarted *started, const Fault *fault, void *userdata) {
        Host *h = userdata;

        h->n_done++;
        h->result = r;
        ASSERT_TRUE((r < 0) == !started && (r < 0) == (fault != NULL));
        if (r >= 0) {
                ASSERT_EQ(started->pid, 42);
                ASSERT_STREQ(started->tag, "mine");
                ASSERT_TRUE(started->fds[0] >= 0 && started->fds[1] >= 0 && started->fds[2] >= 0);
        }
}

TEST(exec) {
        ExecSpec spec = {};
        Capsule *c;
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);
        c = create_and_wait(&h, "good");

        ASSERT_EQ(capsule_exec(c, &spec, on_exec, &h, &h.fault), fault_errno(FAULT_INVALID_ARGS));
        fault_done(&h.fault);

        for (unsigned i = 0; i < 2; i++) {
                spec = (ExecSpec) { .argv = strv_split("true", " "),
                                    .tag = strdup("mine"),
                                    .want_stdin = i };
                h.n_done = h.n_exited = 0;
                ASSERT_EQ(capsule_exec(c, &spec, on_exec, &h, &h.fault), 0);
                exec_spec_done(&spec);
                turn_until(&h, &h.n_done, 1);
                ASSERT_EQ(h.result, 0);
                turn_until(&h, &h.n_exited, 1);
                ASSERT_EQ(h.exit_code, 7);
        }

        /* one that is under way when the capsule ends is answered */
        spec = (ExecSpec) { .argv = strv_split("true", " "), .tag = strdup("mine") };
        ASSERT_EQ(kill(c->monitor_pid, SIGSTOP), 0);
        h.n_done = 0;
        ASSERT_EQ(capsule_exec(c, &spec, on_exec, &h, &h.fault), 0);
        exec_spec_done(&spec);
        ASSERT_EQ(capsule_destroy(c, END_USER, NULL, NULL, &h.fault), 0);
        turn_until(&h, &h.n_done, 1);
        ASSERT_TRUE(h.result < 0);
        down(&h);
}

TEST(terminals_and_attaching) {
        static const struct {
                const char *selector;
                int r;
        } selectors[] = {
                { "tty", 0 }, { "process", 0 }, { "liar", -EREMOTEIO }, /* no fds */
        };
        ExecSpec spec = { .pty = true, .cols = 80, .rows = 24 };
        Capsule *c;
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);
        c = create_and_wait(&h, "good");
        for (unsigned i = 0; i < ELEMENTSOF(selectors); i++) {
                h.n_done = 0;
                ASSERT_EQ(capsule_attach(c, selectors[i].selector, on_exec, &h, &h.fault), 0);
                turn_until(&h, &h.n_done, 1);
                ASSERT_EQ(h.result, selectors[i].r);
        }
        ASSERT_EQ(capsule_attach(c, "a/b", on_exec, &h, &h.fault), -EINVAL);
        fault_done(&h.fault);

        spec.tag = strdup("mine");
        h.n_done = 0;
        ASSERT_EQ(capsule_exec(c, &spec, on_exec, &h, &h.fault), 0);
        turn_until(&h, &h.n_done, 1);
        ASSERT_EQ(h.result, 0);
        spec.rows = PTY_ROWS_MAX + 1;
        ASSERT_EQ(capsule_exec(c, &spec, on_exec, &h, &h.fault), -EINVAL);
        exec_spec_done(&spec);
        down(&h);
}

static int on_entry(const FileEntry *e, void *userdata) {
        Host *h = userdata;

        h->n_entries++;
        ASSERT_STREQ(e->path, "/n");
        ASSERT_EQ(e->mode, 0644);
        return 0;
}

static int on_process(const ProcessEntry *e, void *userdata) {
        Host *h = userdata;

        h->n_entries++;
        ASSERT_EQ(e->pid, h->n_entries);
        ASSERT_EQ(strv_length(e->args), e->pid == 1 ? 2 : 0);
        return 0;
}

TEST(lists) {
        static const struct {
                const char *path;
                int r;
                unsigned n;
                const char *message; /* or a part of it */
        } cases[] = {
                { "/good", 0, 2, NULL },
                { "/last-line-open", 0, 2, NULL },
                { "/empty", 0, 0, NULL },
                { "/most", 0, DIRECTORY_ENTRIES_MAX, NULL },
                { "/many", -E2BIG, DIRECTORY_ENTRIES_MAX, "There are more than 10000 entries." },
                { "/broken-off", -E2BIG, 1, "Enough \\x1b of it." },
                { "/no-json", -EREMOTEIO, 1, "The agent's answer is not valid" },
                { "/bad-type", -EREMOTEIO, 0, "type" },
                { "/bad-size", -EREMOTEIO, 0, "size" },
                { "/nul", -EREMOTEIO, 0, "name" },
                { "/long-line", -EREMOTEIO, 0, "The agent's answer is not valid." },
                { "/refused", -ENOENT, 0, "No such file." },
                { "/broke", -EREMOTEIO, 0, "It broke." },
        };
        Capsule *c;
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);
        c = create_and_wait(&h, "good");
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                h.n_done = h.n_entries = 0;
                ASSERT_EQ(capsule_list_directory(c, cases[i].path, 1, on_entry, on_done, &h, &h.fault), 0);
                turn_until(&h, &h.n_done, 1);
                ASSERT_EQ(h.result, cases[i].r);
                ASSERT_EQ(h.n_entries, cases[i].n);
                if (cases[i].message)
                        ASSERT_NOT_NULL(strstr(h.fault.message, cases[i].message));
                fault_done(&h.fault);
        }
        h.n_done = h.n_entries = 0;
        ASSERT_EQ(capsule_list_processes(c, on_process, on_done, &h, &h.fault), 0);
        turn_until(&h, &h.n_done, 1);
        ASSERT_EQ(h.n_entries, 2);

        h.n_done = 0;
        ASSERT_EQ(capsule_stat_path(c, "/good", on_entry, on_done, &h, &h.fault), 0); /* two entries */
        turn_until(&h, &h.n_done, 1);
        ASSERT_EQ(h.result, -E2BIG);
        fault_done(&h.fault);
        ASSERT_EQ(capsule_list_directory(c, "/", FILE_DEPTH_MAX + 1, on_entry, on_done, &h, &h.fault),
                  -EINVAL);
        fault_done(&h.fault);

        /* so many at once; they fail with the capsule */
        h.n_done = 0;
        for (unsigned i = 0; i < LISTINGS_MAX; i++)
                ASSERT_EQ(capsule_stat_path(c, "/never", on_entry, on_done, &h, &h.fault), 0);
        ASSERT_EQ(capsule_stat_path(c, "/never", on_entry, on_done, &h, &h.fault),
                  fault_errno(FAULT_QUOTA_EXCEEDED));
        fault_done(&h.fault);
        ASSERT_EQ(capsule_destroy(c, END_USER, NULL, NULL, &h.fault), 0);
        turn_until(&h, &h.n_done, LISTINGS_MAX);
        ASSERT_EQ(h.result, -EREMOTEIO);
        ASSERT_EQ(h.manager->n_listings, 0);
        down(&h);
}

static void on_job_removed(Job *j, const char *result, const char *message, void *userdata) {
        Host *h = userdata;

        h->n_removed_jobs++;
        ASSERT_NOT_NULL(job_capsule(j));
        (void) snprintf(h->reason, sizeof(h->reason), "%s", result);
        h->bytes = job_bytes(j);
}

static const ManagerEvents job_events = { .job_removed = on_job_removed };

TEST(copies) {
        static const struct {
                const char *path, *result;
                uint64_t bytes;
        } cases[] = {
                { "/x", "done", 9 },
                { "/broke", "failed", 9 },
                { "/refused", "failed", 0 },
        };
        _cleanup_close_ int fd = memfd_create("tar", MFD_CLOEXEC),
                            odd = open("/dev/null", O_RDWR | O_CLOEXEC);
        Capsule *c;
        Job *j;
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);
        c = create_and_wait(&h, "good");
        manager_set_events(h.manager, &job_events, &h);
        for (size_t i = 0; i < 2 * ELEMENTSOF(cases); i++) {
                const char *path = cases[i / 2].path;

                h.n_removed_jobs = 0;
                ASSERT_EQ(i % 2 ? job_copy_to(c, fd, path, &j, &h.fault)
                                : job_copy_from(c, path, fd, &j, &h.fault),
                          0);
                ASSERT_EQ(job_state(j), JOB_RUNNING);
                ASSERT_STREQ(job_target(j), c->id);
                ASSERT_STREQ(job_unit(j), "");
                turn_until(&h, &h.n_removed_jobs, 1);
                ASSERT_STREQ(h.reason, cases[i / 2].result);
                ASSERT_EQ(h.bytes, cases[i / 2].bytes);
        }
        ASSERT_EQ(job_copy_to(c, odd, "/x", &j, &h.fault), -EINVAL);
        fault_done(&h.fault);
        ASSERT_EQ(job_copy_from(c, "", fd, &j, &h.fault), -EINVAL);
        fault_done(&h.fault);

        /* cancelled before the monitor answered, and after */
        for (unsigned i = 0; i < 2; i++) {
                h.n_removed_jobs = 0;
                ASSERT_EQ(job_copy_to(c, fd, "/never", &j, &h.fault), 0);
                for (unsigned k = 0; k < 50 * i; k++)
                        ASSERT_OK(sd_event_run(h.event, USEC_PER_MSEC));
                job_cancel(j);
                turn_until(&h, &h.n_removed_jobs, 1);
                ASSERT_STREQ(h.reason, "canceled");
        }

        h.n_removed_jobs = 0;
        for (unsigned i = 0; i < COPIES_MAX; i++)
                ASSERT_EQ(job_copy_to(c, fd, "/never", &j, &h.fault), 0);
        ASSERT_EQ(job_copy_to(c, fd, "/never", &j, &h.fault), fault_errno(FAULT_QUOTA_EXCEEDED));
        fault_done(&h.fault);
        manager_end_copies(h.manager);
        ASSERT_EQ(h.n_removed_jobs, COPIES_MAX);
        ASSERT_STREQ(h.reason, "failed");

        /* with the capsule */
        ASSERT_EQ(job_copy_to(c, fd, "/never", &j, &h.fault), 0);
        ASSERT_EQ(capsule_destroy(c, END_USER, NULL, NULL, &h.fault), 0);
        turn_until(&h, &h.n_removed_jobs, COPIES_MAX + 1);
        ASSERT_STREQ(h.reason, "failed");
        down(&h);
}

TEST(adoption) {
        pid_t monitor;
        char id[64];
        Capsule *c;
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);

        c = create_and_wait(&h, "good");
        monitor = c->monitor_pid;
        (void) snprintf(id, sizeof(id), "%s", c->id);
        manager_down(&h);
        fake_n_slots = 0;

        /* without control groups its processes cannot be told apart, so that it is taken down, not adopted
         */
        manager_up(&h);
        c = manager_find_capsule(h.manager, id, NULL, &h.fault);
        ASSERT_NOT_NULL(c);
        ASSERT_EQ(h.n_removed, 1);
        ASSERT_EQ(c->state, CAPSULE_STOPPED);
        ASSERT_EQ(c->reason, END_LOST);
        assert_clean(&h);
        (void) waitpid(monitor, NULL, 0);
        down(&h);
}

TEST(what_nobody_knows_is_removed) {
        _cleanup_free_ char *run = NULL, *kept = NULL;
        Capsule *c = NULL;
        pid_t pid;
        Host h;
        int r;

        if (getuid() != 0)
                skip();
        up(&h);

        /* a record whose host was another boot, one that was starting, a scope and directories of nobody */
        for (unsigned i = 0; i < 2; i++) {
                char id[64];

                ASSERT_EQ(id_random("cl", id), 0);
                r = store_put_capsule(h.manager->store,
                                      &(CapsuleRow) { .id = id,
                                                      .state = i ? "starting" : "running",
                                                      .reason = "",
                                                      .labels = "{}",
                                                      .team = "default",
                                                      .boot_id = i ? h.manager->boot_id : "another",
                                                      .template_id = "good",
                                                      .template = "good",
                                                      .accelerator = "tcg",
                                                      .memory_bytes = GIB,
                                                      .vcpus = 1,
                                                      .uid = 1900000100 + i },
                                      false, &h.fault);
                ASSERT_EQ(r, 0);
        }
        manager_down(&h);

        pid = fork();
        if (pid == 0) {
                (void) pause();
                _exit(0);
        }
        fake_systemd_add_unit(h.systemd, "wrenn-cl-0000000000000000000000000.scope", pid);
        run = strjoin(h.base, "/run/capsules/cl-1111111111111111111111111");
        kept = strjoin(h.base, "/state/capsules/cl-1111111111111111111111111");
        ASSERT_EQ(mkdir_parents(run, 0700), 0);
        ASSERT_EQ(mkdir_parents(kept, 0700), 0);

        manager_up(&h);
        ASSERT_EQ(h.n_removed, 3);
        ASSERT_EQ(waitpid(pid, NULL, 0), pid);
        assert_clean(&h);

        HASHMAP_FOREACH(c, h.manager->capsules)
                ASSERT_TRUE((c->state == CAPSULE_STOPPED && c->reason == END_HOST_REBOOT) ||
                            (c->state == CAPSULE_ERROR && c->reason == END_LOST));
        down(&h);
}

TEST(admission) {
        CapsuleSpec spec = { .template = strdup("good"), .memory_bytes = 4 * GIB };
        Capsule *c = NULL, *running[3];
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);

        ASSERT_EQ(capsule_create(h.manager, &spec, NULL, NULL, &c, &h.fault),
                  fault_errno(FAULT_NO_CAPACITY));
        ASSERT_NOT_NULL(strstr(h.fault.message, "MemoryBudget="));
        fault_done(&h.fault);
        capsule_spec_done(&spec);

        h.manager->config.capsules_max = 3;
        for (size_t i = 0; i < ELEMENTSOF(running); i++)
                running[i] = create(&h, "no-ready");
        spec = (CapsuleSpec) { .template = strdup("good") };
        ASSERT_EQ(capsule_create(h.manager, &spec, NULL, NULL, &c, &h.fault),
                  fault_errno(FAULT_NO_CAPACITY));
        ASSERT_NOT_NULL(strstr(h.fault.message, "MaxCapsules="));
        fault_done(&h.fault);
        capsule_spec_done(&spec);

        for (size_t i = 0; i < ELEMENTSOF(running); i++)
                ASSERT_TRUE(capsule_destroy(running[i], END_USER, NULL, NULL, &h.fault) >= 0);
        for (size_t i = 0; i < ELEMENTSOF(running); i++)
                turn_until_stopped(&h, running[i]);
        assert_clean(&h);
        down(&h);
}

TEST(bad_requests) {
        const struct {
                CapsuleSpec spec;
                FaultCode code;
        } cases[] = {
                { { .template = (char *) "none" }, FAULT_NOT_FOUND },
                { { .template = (char *) "../x" }, FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .vcpus = VCPUS_MAX + 1 }, FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .memory_bytes = MEMORY_BYTES_MIN - MIB },
                  FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .memory_bytes = MEMORY_BYTES_MIN + 1 },
                  FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .memory_bytes = MEMORY_BYTES_MAX + MIB },
                  FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .disk_bytes = DISK_BYTES_MIN - DISK_BYTES_STEP },
                  FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .disk_bytes = DISK_BYTES_MIN + 1 }, FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .timeout_usec = TIMEOUT_USEC_MAX + 1 },
                  FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .labels = (char *[]) { (char *) "=x", NULL } },
                  FAULT_INVALID_ARGS },
                { { .template = (char *) "good", .env = (char *[]) { (char *) "no equals", NULL } },
                  FAULT_INVALID_ARGS },
        };
        Host h;

        if (getuid() != 0)
                skip();
        up(&h);

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                CapsuleSpec spec = cases[i].spec;
                Capsule *c = NULL;

                spec.template = strdup(cases[i].spec.template);
                spec.labels = strv_copy(cases[i].spec.labels);
                spec.env = strv_copy(cases[i].spec.env);
                ASSERT_EQ(capsule_create(h.manager, &spec, NULL, NULL, &c, &h.fault),
                          fault_errno(cases[i].code));
                capsule_spec_done(&spec);
                fault_done(&h.fault);
        }
        ASSERT_EQ(hashmap_size(h.manager->capsules), 0);
        down(&h);
}
