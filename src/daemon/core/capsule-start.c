/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The start flow. The launcher is spawned first and waits for one byte; PID 1 makes the scope around it
 * while the disk is copied; only then it may go on. So limits exist before the first foreign instruction,
 * and a crash of ours before the byte leaves nothing but a record. What was done is undone by the stop flow
 * (capsule-stop.c), which is also the recovery path.
 */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/capsule.h"
#include "daemon/core/journal.h"
#include "daemon/core/layer.h"
#include "daemon/core/manager.h"
#include "daemon/core/monitor-link.h"
#include "daemon/core/template.h"
#include "daemon/core/vmm.h"
#include "daemon/host/cgroup.h"
#include "daemon/host/scope.h"
#include "daemon/host/slot.h"
#include "daemon/host/spawn.h"
#include "shared/event.h"

#define READY_TIMEOUT_USEC     (60 * USEC_PER_SEC)
#define VMM_START_TIMEOUT_USEC (30 * USEC_PER_SEC)
#define LAST_WORDS_USEC        USEC_PER_SEC
#define SOCKET_BACKLOG         16
#define ENTROPY_BYTES          64U

typedef enum StartStep {
        START_IMAGE,   /* an empty disk of that size to copy */
        START_FILES,   /* run directory, sockets, pipe */
        START_SCOPE,   /* launcher, and PID 1's scope around it; the disk meanwhile */
        START_RELEASE, /* the launcher goes on */
        START_VMM,     /* the monitor starts the VMM */
        START_READY,   /* the agent answered */
        START_DONE,
} StartStep;

/* fds of the launcher, in the order of their numbers from SPAWN_FD_FIRST on */
typedef enum LaunchFd {
        LAUNCH_FD_WAIT,
        LAUNCH_FD_CONTROL,
        LAUNCH_FD_DATA,
        LAUNCH_FD_CONSOLE,
        LAUNCH_FD_EXIT,
        LAUNCH_FD_LOG,
        LAUNCH_FD_NETNS,
        _LAUNCH_FD_MAX,
} LaunchFd;

struct CapsuleStart {
        Capsule *capsule; /* weak: owns us */
        StartStep step;
        Fault fault;
        uint64_t begin_usec; /* CLOCK_MONOTONIC */
        sd_event_source *defer, *timer;
        LayerCall *layer_call;
        UnitCall *scope_call;
        JsonCall *vmm_call;
        int fds[_LAUNCH_FD_MAX];
        int go_fd;  /* our end of LAUNCH_FD_WAIT */
        bool ready; /* came before its step */
};

static void start_advance(CapsuleStart *s, int r);

static void close_launch_fds(CapsuleStart *s) {
        for (size_t i = 0; i < _LAUNCH_FD_MAX; i++)
                s->fds[i] = close_fd(s->fds[i]);
}

static CapsuleStart* start_free(CapsuleStart *s) {
        if (!s)
                return NULL;

        event_source_free(s->defer);
        event_source_free(s->timer);
        layer_call_free(s->layer_call);
        unit_call_free(s->scope_call);
        json_call_free(s->vmm_call);
        close_launch_fds(s);
        close_fd(s->go_fd);
        fault_done(&s->fault);
        free(s);
        return NULL;
}

void capsule_start_cancel(Capsule *c) {
        c->start = start_free(c->start);
}

/* --- files ----------------------------------------------------------------------------------- */

/* The directory below run, with the two listening sockets and the two files the monitor writes. */
static int make_run_dir(CapsuleStart *s, Fault *reterr) {
        static const struct {
                LaunchFd which;
                const char *name;
        } files[] = { { LAUNCH_FD_CONSOLE, "console" }, { LAUNCH_FD_EXIT, "exit" } };
        static const struct {
                LaunchFd which;
                const char *name;
        } sockets[] = { { LAUNCH_FD_CONTROL, "control.sock" }, { LAUNCH_FD_DATA, "data.sock" } };
        Capsule *c = s->capsule;
        _cleanup_close_ int base = openat(c->manager->run_fd, "capsules",
                                          O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                            dir = -EBADF;

        dir = base < 0 ? -errno : open_dir_at(base, c->id, /* create= */ true, 0700);
        if (dir < 0)
                return fault_set_errno(reterr, dir, "Failed to make the run directory");

        for (size_t i = 0; i < ELEMENTSOF(sockets); i++) {
                int fd = unix_listen(dir, sockets[i].name, SOCK_STREAM, 0600, SOCKET_BACKLOG);

                if (fd < 0)
                        return fault_set_errno(reterr, fd, "Failed to listen on '%s'", sockets[i].name);
                s->fds[sockets[i].which] = fd;
        }

        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                int fd = openat(dir, files[i].name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                                0600);

                if (fd < 0)
                        return fault_set_errno(reterr, errno, "Failed to make '%s'", files[i].name);
                s->fds[files[i].which] = fd;
        }
        return 0;
}

static int make_wait_pipe(CapsuleStart *s, Fault *reterr) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return fault_set_errno(reterr, errno, "Failed to make a pipe");

        s->fds[LAUNCH_FD_WAIT] = fds[0];
        s->go_fd = fds[1];
        return 0;
}

static int step_files(CapsuleStart *s) {
        int r;

        r = make_run_dir(s, &s->fault);
        return r < 0 ? r : make_wait_pipe(s, &s->fault);
}

/* --- launcher and scope ---------------------------------------------------------------------- */

static int add_launch_args(CapsuleStart *s, const VmmChoice *v, char ***argv) {
        Capsule *c = s->capsule;
        uint64_t fsize = MAX(c->spec.disk_bytes, (uint64_t) 2 * CONSOLE_RING_BYTES);
        int r;

        r = strv_extend(argv, v->launcher);
        if (r >= 0)
                r = strv_extendf(argv, "--wait-fd=%d", SPAWN_FD_FIRST + LAUNCH_FD_WAIT);
        if (r >= 0)
                r = strv_extendf(argv, "--netns-fd=%d", SPAWN_FD_FIRST + LAUNCH_FD_NETNS);
        if (r >= 0)
                r = strv_extendf(argv, "--uid=%u", c->uid);
        if (r >= 0)
                r = strv_extendf(argv, "--gid=%u", c->uid);
        if (r >= 0)
                r = strv_extendf(argv, "--keep-fd=%d,%d,%d,%d,%d", SPAWN_FD_FIRST + LAUNCH_FD_CONTROL,
                                 SPAWN_FD_FIRST + LAUNCH_FD_DATA, SPAWN_FD_FIRST + LAUNCH_FD_CONSOLE,
                                 SPAWN_FD_FIRST + LAUNCH_FD_EXIT, SPAWN_FD_FIRST + LAUNCH_FD_LOG);
        if (r >= 0)
                r = strv_extendf(argv, "--fsize=%llu", (unsigned long long) fsize);
        if (r >= 0)
                r = strv_extend(argv, "--memory-lock=0");
        STRV_FOREACH(i, v->jail_args)
                if (r >= 0)
                        r = strv_extend(argv, *i);
        return r;
}

static int add_jail_files(CapsuleStart *s, char ***argv, Fault *reterr) {
        Capsule *c = s->capsule;
        _cleanup_free_ char *kernel = NULL, *initrd = NULL, *rootfs = template_image_path(c->template),
                            *layer = capsule_state_path(c, "layer.ext4");
        int r;

        r = vmm_find_kernel(c->manager->vmm, &kernel, &initrd, reterr);
        if (r < 0)
                return r;
        if (!rootfs || !layer)
                return -ENOMEM;

        r = strv_extendf(argv, "--bind-ro=%s:/kernel", kernel);
        if (r >= 0)
                r = strv_extendf(argv, "--bind-ro=%s:/initrd", initrd);
        if (r >= 0)
                r = strv_extendf(argv, "--bind-ro=%s:/rootfs", rootfs);
        if (r >= 0)
                r = strv_extendf(argv, "--bind=%s:/layer", layer);
        if (r >= 0)
                r = strv_extend(argv, "--dev=null");
        if (r >= 0 && c->accelerator == ACCELERATOR_KVM)
                r = strv_extend(argv, "--dev=kvm");
        return r;
}

static int add_monitor_args(CapsuleStart *s, const VmmChoice *v, char ***argv) {
        int r;

        r = strv_extend(argv, "--");
        if (r >= 0)
                r = strv_extend(argv, v->monitor);
        if (r >= 0)
                r = strv_extendf(argv, "--id=%s", s->capsule->id);
        if (r >= 0)
                r = strv_extendf(argv, "--control-fd=%d", SPAWN_FD_FIRST + LAUNCH_FD_CONTROL);
        if (r >= 0)
                r = strv_extendf(argv, "--data-fd=%d", SPAWN_FD_FIRST + LAUNCH_FD_DATA);
        if (r >= 0)
                r = strv_extendf(argv, "--console-fd=%d", SPAWN_FD_FIRST + LAUNCH_FD_CONSOLE);
        if (r >= 0)
                r = strv_extendf(argv, "--exit-fd=%d", SPAWN_FD_FIRST + LAUNCH_FD_EXIT);
        if (r >= 0)
                r = strv_extendf(argv, "--log-fd=%d", SPAWN_FD_FIRST + LAUNCH_FD_LOG);
        return r;
}

static int spawn_launcher(CapsuleStart *s, const VmmChoice *v, Fault *reterr) {
        Capsule *c = s->capsule;
        _cleanup_strv_ char **argv = NULL, **env = NULL;
        pid_t pid;
        int r;

        s->fds[LAUNCH_FD_LOG] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, SPAWN_FD_FIRST);
        s->fds[LAUNCH_FD_NETNS] = fcntl(slot_netns_fd(c->slot), F_DUPFD_CLOEXEC, SPAWN_FD_FIRST);
        if (s->fds[LAUNCH_FD_LOG] < 0 || s->fds[LAUNCH_FD_NETNS] < 0)
                return fault_set_errno(reterr, errno, "Failed to pass file descriptors on");

        r = add_launch_args(s, v, &argv);
        if (r >= 0)
                r = add_jail_files(s, &argv, reterr);
        if (r >= 0)
                r = add_monitor_args(s, v, &argv);
        if (r >= 0)
                r = strv_extendf(&env, "WRENN_LOG_LEVEL=%s", log_level_to_string(log_get_level()));
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to prepare the launcher");

        r = spawn_program(argv, env, s->fds, _LAUNCH_FD_MAX, &pid, &c->monitor_pidfd);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to run '%s'", argv[0]);

        close_launch_fds(s);
        r = capsule_watch_monitor(c, pid);
        return r < 0 ? fault_set_errno(reterr, r, "Failed to watch the launcher") : 0;
}

static void on_scope(UnitCall *call, int r, const Fault *fault, void *userdata) {
        CapsuleStart *s = userdata;

        s->scope_call = unit_call_free(s->scope_call);
        if (r < 0 && fault)
                (void) fault_set(&s->fault, fault->code, "%s", fault->message);
        start_advance(s, r);
}

static int start_scope(CapsuleStart *s) {
        Capsule *c = s->capsule;
        const Config *config = &c->manager->config;
        char size[FORMAT_SIZE_LEN];
        _cleanup_free_ char *slice = capsule_slice(c), *description = NULL;
        int r;

        description = asprintf_null("Wrenn capsule %s (template %s, %u vCPU, %s)", c->id, c->spec.template,
                                    c->spec.vcpus, format_size(size, c->spec.memory_bytes));
        if (!slice || !description)
                return -ENOMEM;

        r = scope_start(c->manager->systemd, c->unit,
                        &(ScopeSpec) {
                                        .slice = slice,
                                        .description = description,
                                        .pid = c->monitor_pid,
                                        .memory_max_bytes = c->reserved_bytes,
                                        .cpu_percent = c->spec.vcpus * 100U,
                                        .cpu_weight = config->cpu_weight,
                                        .tasks_max = config->tasks_max,
                                        .stop_timeout_usec = config->stop_timeout_usec,
                                        .kvm = c->accelerator == ACCELERATOR_KVM,
                        },
                        on_scope, s, &s->scope_call);
        if (r < 0)
                return fault_set_errno(&s->fault, r, "Failed to ask systemd for the scope");

        c->scope_exists = true;
        return 0;
}

static int copy_layer(CapsuleStart *s, Fault *reterr) {
        Capsule *c = s->capsule;
        _cleanup_close_ int base = openat(c->manager->state_fd, "capsules",
                                          O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                            dir = -EBADF;

        dir = base < 0 ? -errno : open_dir_at(base, c->id, /* create= */ true, 0700);
        if (dir < 0)
                return fault_set_errno(reterr, dir, "Failed to make the capsule's directory");
        return layer_cache_copy(c->manager->layers, c->spec.disk_bytes, dir, "layer.ext4", c->uid, reterr);
}

/* While PID 1 is at work on the scope, the disk is copied. */
static int step_scope(CapsuleStart *s) {
        Capsule *c = s->capsule;
        VmmChoice choice;
        int r;

        if (!c->manager->systemd)
                return fault_set(&s->fault, FAULT_BACKEND_UNAVAILABLE, "There is no connection to systemd.");

        r = vmm_choose(c->manager->vmm, &choice, &s->fault);
        if (r >= 0)
                r = spawn_launcher(s, &choice, &s->fault);
        if (r >= 0)
                r = start_scope(s);
        if (r >= 0)
                r = copy_layer(s, &s->fault);
        return r;
}

static int step_release(CapsuleStart *s) {
        int r;

        r = write_all(s->go_fd, "g", 1);
        s->go_fd = close_fd(s->go_fd);
        if (r < 0)
                return fault_set_errno(&s->fault, r, "Failed to release the launcher");

        r = capsule_connect(s->capsule);
        return r < 0 ? fault_set_errno(&s->fault, r, "Failed to connect to the monitor") : 0;
}

/* --- VMM ------------------------------------------------------------------------------------- */

static json_t* make_identity(Capsule *c) {
        _cleanup_strv_ char **env = strv_copy(c->template->env);
        _cleanup_free_ char *entropy = NULL;
        uint8_t random[ENTROPY_BYTES];
        char address[64];

        (void) snprintf(address, sizeof(address), "%s/%u", GUEST_ADDRESS4, GUEST_PREFIXLEN4);
        STRV_FOREACH(i, c->spec.env)
                if (strv_extend(&env, *i) < 0)
                        return NULL;
        if (getrandom(random, sizeof(random), 0) != (ssize_t) sizeof(random))
                return NULL;
        entropy = base64_encode(random, sizeof(random));
        explicit_bzero(random, sizeof(random));
        if (!entropy)
                return NULL;

        return json_pack("{s:s, s:s, s:s, s:I, s:s, s:o, s:s, s:{s:s, s:s, s:[s]}}", "id", c->id, "template",
                         c->spec.template, "hostname", c->id, "realtime_usec",
                         (json_int_t) now_usec(CLOCK_REALTIME), "entropy", entropy, "env",
                         json_from_env(env), "default_user",
                         isempty(c->template->default_user) ? "root" : c->template->default_user, "network",
                         "address", address, "gateway", GUEST_GATEWAY4, "dns", GUEST_GATEWAY4);
}

static json_t* make_vmm_config(Capsule *c, const VmmChoice *v) {
        json_t *identity = make_identity(c);

        if (!identity)
                return NULL;

        return json_pack(
                        "{s:{s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:[{s:s, s:b}, {s:s, s:b}], s:s, s:I, s:o}}",
                        "config", "backend", "qemu", "accelerator", accelerator_to_string(c->accelerator),
                        "vcpus", (json_int_t) c->spec.vcpus, "memory_bytes",
                        (json_int_t) c->spec.memory_bytes, "vmm", v->program, "kernel", "/kernel", "initrd",
                        "/initrd", "disks", "path", "/rootfs", "read_only", 1, "path", "/layer", "read_only",
                        0, "mac", GUEST_MAC, "tsc_khz", (json_int_t) vmm_tsc_khz(c->manager->vmm),
                        "identity", identity);
}

/* The monitor may name any pid: believed is one of its own scope. */
static bool pid_is_ours(Capsule *c, pid_t pid) {
        _cleanup_free_ char *slice = capsule_slice(c);
        pid_t pids[CGROUP_PROCS_MAX];
        size_t n = 0;

        if (!slice || !cgroup_exists(slice, c->unit))
                return true;
        n = cgroup_processes(slice, c->unit, pids, ELEMENTSOF(pids));
        for (size_t i = 0; i < n; i++)
                if (pids[i] == pid)
                        return true;
        return false;
}

static int on_silent_end(sd_event_source *source, uint64_t usec, void *userdata) {
        CapsuleStart *s = userdata;

        (void) fault_set(&s->fault, FAULT_AGENT, "The monitor closed its connection.");
        start_advance(s, -ECONNRESET);
        return 0;
}

static void on_vmm_started(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault,
                           void *userdata) {
        CapsuleStart *s = userdata;
        Capsule *c = s->capsule;
        json_int_t pid;

        s->vmm_call = json_call_free(s->vmm_call);

        if (r == -ECONNRESET && c->monitor_pidfd >= 0 &&
            event_timer(c->manager->event, &s->timer, LAST_WORDS_USEC, PRIORITY_VMM, on_silent_end, s,
                        "last-words") >= 0)
                return; /* its exit status says more */

        if (r < 0)
                r = fault && fault_is_set(fault)
                                    ? fault_set(&s->fault, fault->code, "%s", fault->message)
                                    : fault_set_errno(&s->fault, r,
                                                      "The monitor did not start the virtual machine");
        else {
                pid = json_integer_value(json_object_get(result, "vmm_pid"));
                if (pid <= 1 || pid > INT32_MAX || !pid_is_ours(c, (pid_t) pid))
                        r = fault_set(&s->fault, FAULT_AGENT,
                                      "The monitor told a process that is not the capsule's.");
                else
                        r = capsule_watch_vmm(c, (pid_t) pid);
                if (r == -ESRCH)
                        r = 0; /* ended already: the monitor will tell */
                if (r >= 0)
                        capsule_tell_one(c, "VMMPID");
        }
        start_advance(s, r);
}

static int step_vmm(CapsuleStart *s) {
        Capsule *c = s->capsule;
        _cleanup_close_ int tap_fd = slot_take_tap_fd(c->slot);
        _cleanup_(fault_done) Fault save_fault = FAULT_NULL;
        _cleanup_json_ json_t *body = NULL;
        VmmChoice choice;
        int r;

        r = vmm_choose(c->manager->vmm, &choice, &s->fault);
        if (r < 0)
                return r;

        body = make_vmm_config(c, &choice);
        if (!body)
                return fault_set_errno(&s->fault, ENOMEM, "Failed to describe the virtual machine");

        capsule_set_state(c, CAPSULE_STARTING);
        (void) capsule_save(c, /* durable= */ false, &save_fault);
        r = monitor_link_call(c->link, CONTROL_VERB_START, body, &tap_fd, tap_fd >= 0 ? 1 : 0,
                              VMM_START_TIMEOUT_USEC, on_vmm_started, s, &s->vmm_call);
        c->spec.env = strv_free(c->spec.env);
        return r < 0 ? fault_set_errno(&s->fault, r, "Failed to talk to the monitor") : 0;
}

static int on_ready_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        CapsuleStart *s = userdata;

        (void) fault_set(&s->fault, FAULT_AGENT, "The guest did not come up within %llu s.",
                         (unsigned long long) (READY_TIMEOUT_USEC / USEC_PER_SEC));
        start_advance(s, -ETIMEDOUT);
        return 0;
}

static int step_ready(CapsuleStart *s) {
        int r;

        r = event_timer(s->capsule->manager->event, &s->timer, READY_TIMEOUT_USEC, PRIORITY_VMM,
                        on_ready_timeout, s, "ready");
        return r < 0 ? fault_set_errno(&s->fault, r, "Failed to wait for the guest") : 0;
}

void capsule_start_on_ready(Capsule *c, uint64_t boot_usec) {
        CapsuleStart *s = c->start;

        capsule_tell_one(c, "AgentVersion");
        if (!s)
                return;
        log_capsule(c->id, LOG_DEBUG, 0, "The guest is ready, %llu us after its start.",
                    (unsigned long long) boot_usec);

        s->ready = true;
        if (s->step > START_READY) {
                s->timer = event_source_free(s->timer);
                start_advance(s, 0);
        }
}

/* The launcher or the monitor ended while we waited. */
void capsule_start_on_process_end(Capsule *c) {
        CapsuleStart *s = c->start;

        if (WIFEXITED(c->monitor_status) && WEXITSTATUS(c->monitor_status) != 0)
                (void) fault_set(
                                &s->fault, FAULT_AGENT,
                                "The capsule's launcher or monitor failed with exit status %d; see the log.",
                                WEXITSTATUS(c->monitor_status));
        else
                (void) fault_set(&s->fault, FAULT_AGENT, "The capsule ended while it was starting%s%s.",
                                 c->message ? ": " : "", strempty(c->message));
        start_advance(s, -EREMOTEIO);
}

/* --- the flow -------------------------------------------------------------------------------- */

static void on_image(LayerCall *call, int r, const Fault *fault, void *userdata) {
        CapsuleStart *s = userdata;

        s->layer_call = layer_call_free(s->layer_call);
        if (r < 0 && fault)
                (void) fault_set(&s->fault, fault->code, "%s", fault->message);
        start_advance(s, r);
}

/* 1: done, 0: on_image() comes. */
static int step_image(CapsuleStart *s) {
        return layer_cache_prepare(s->capsule->manager->layers, s->capsule->spec.disk_bytes, on_image, s,
                                   &s->layer_call, &s->fault);
}

static void start_succeed(CapsuleStart *s) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = s->capsule;
        uint64_t took = now_usec(CLOCK_MONOTONIC) - s->begin_usec;

        capsule_start_cancel(c);
        c->started_usec = c->active_usec = now_usec(CLOCK_REALTIME);
        /* The state last: who waits for it may rely on the rest. */
        capsule_tell_one(c, "StartedTimestamp", "LastActiveTimestamp", "AgentVersion", "Leader", "VMMPID",
                         "HostAddress");
        capsule_set_state(c, CAPSULE_RUNNING);
        (void) capsule_save(c, /* durable= */ false, &fault);
        journal_capsule(c, JOURNAL_RUNNING, LOG_INFO, "Running after %llu ms.",
                        (unsigned long long) (took / USEC_PER_MSEC));
        capsule_finish_create(c, 0, NULL);
}

/* Its waiters hear of it once all is undone. */
static void start_fail(CapsuleStart *s, int r) {
        Capsule *c = s->capsule;
        EndReason reason;

        if (!fault_is_set(&s->fault))
                (void) fault_set_errno(&s->fault, r, "Failed to start the capsule");
        journal_capsule(c, JOURNAL_FAILED, LOG_ERR, "Failed to start: %s", s->fault.message);
        capsule_set_message(c, s->fault.message);

        reason = s->fault.code == FAULT_NO_SPACE ? END_DISK_FULL : END_VMM_CRASH;
        c->start_result = r;
        c->start_fault = s->fault;
        s->fault = FAULT_NULL;
        capsule_start_cancel(c);
        (void) capsule_stop_begin(c, reason, /* error= */ true);
}

static void start_advance(CapsuleStart *s, int r) {
        _cleanup_(capsule_unrefp) Capsule *c = capsule_ref(s->capsule);

        log_capsule(c->id, LOG_DEBUG, 0, "Start step %d after %llu us.", (int) s->step,
                    (unsigned long long) (now_usec(CLOCK_MONOTONIC) - s->begin_usec));
        while (r >= 0)
                switch (s->step++) {
                case START_IMAGE:
                        r = step_image(s);
                        if (r == 0)
                                return;
                        break;
                case START_FILES:
                        r = step_files(s);
                        break;
                case START_SCOPE:
                        r = step_scope(s);
                        if (r >= 0)
                                return;
                        break;
                case START_RELEASE:
                        r = step_release(s);
                        break;
                case START_VMM:
                        r = step_vmm(s);
                        if (r >= 0)
                                return;
                        break;
                case START_READY:
                        if (s->ready)
                                break;
                        r = step_ready(s);
                        if (r >= 0)
                                return;
                        break;
                case START_DONE:
                        start_succeed(s);
                        return;
                }

        start_fail(s, r);
}

static int on_begin(sd_event_source *source, void *userdata) {
        start_advance(userdata, 0);
        return 0;
}

static int start_new(Capsule *c, StartStep step, Fault *reterr) {
        CapsuleStart *s;
        int r;

        assert(!c->start && !c->stop);

        s = malloc(sizeof(CapsuleStart));
        if (!s)
                return fault_set_errno(reterr, ENOMEM, "Failed to start the capsule");

        *s = (CapsuleStart) {
                .capsule = c, .step = step, .begin_usec = now_usec(CLOCK_MONOTONIC), .go_fd = -EBADF
        };
        for (size_t i = 0; i < _LAUNCH_FD_MAX; i++)
                s->fds[i] = -EBADF;

        r = event_defer(c->manager->event, &s->defer, PRIORITY_VMM, on_begin, s);
        if (r < 0) {
                start_free(s);
                return fault_set_errno(reterr, r, "Failed to start the capsule");
        }

        c->start = s;
        return 0;
}

int capsule_start_begin(Capsule *c, Fault *reterr) {
        return start_new(c, START_IMAGE, reterr);
}

int capsule_start_resume(Capsule *c, bool ready) {
        int r;

        r = start_new(c, START_READY, /* reterr= */ NULL);
        if (r >= 0)
                c->start->ready = ready;
        return r;
}
