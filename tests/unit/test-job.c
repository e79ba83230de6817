/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Jobs from their making to their end, with a worker that does what the test says: this file takes the place
 * of host/worker-unit.c, of the part of host/systemd.c that jobs use, and of core/trash.c.
 */

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/sha256.h"
#include "basic/strings.h"
#include "daemon/core/job-internal.h"
#include "daemon/core/template.h"
#include "daemon/core/trash.h"
#include "tests/unit/test.h"

#define DIGEST "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

/* --- the fakes ------------------------------------------------------------------------------- */

struct WorkerUnit {
        const WorkerHandlers *handlers;
        void *userdata;
        char *unit, *job, *directory;
        bool cancelled;
        json_t *result; /* go with it, as the real one's do */
        Fault fault;
};

static WorkerUnit *worker; /* the one at work */
static unsigned n_stopped; /* orphans */

int worker_unit_start(Systemd *s, sd_event *e, const WorkerSpec *spec, const WorkerHandlers *handlers,
                      void *userdata, WorkerUnit **ret) {
        WorkerUnit *w = calloc(1, sizeof(WorkerUnit));

        assert(w && !worker);
        *w = (WorkerUnit) {
                .handlers = handlers,
                .userdata = userdata,
                .unit = strdup(spec->unit),
                .job = strdup(json_string_value(json_object_get(spec->request, "job"))),
                .directory = strdup(spec->directory),
        };
        assert((spec->userns_first != 0) == !streq(w->job, "prepare-kernel"));
        assert(spec->network == !streq(w->job, "import-template"));
        *ret = worker = w;
        return 0;
}

void worker_unit_cancel(WorkerUnit *w) {
        w->cancelled = true;
}

WorkerUnit* worker_unit_free(WorkerUnit *w) {
        if (!w)
                return NULL;
        if (w == worker)
                worker = NULL;
        free(w->unit);
        free(w->job);
        free(w->directory);
        json_decref(w->result);
        fault_done(&w->fault);
        free(w);
        return NULL;
}

struct UnitCall {
        sd_event_source *source;
        UnitDone done;
        UnitListDone list_done;
        void *userdata;
};

static int on_call(sd_event_source *source, void *userdata) {
        static const UnitInfo orphan = { .name = "wrenn-job-9.service",
                                         .active_state = "active",
                                         .sub_state = "running" };
        UnitCall *c = userdata;

        if (c->list_done)
                c->list_done(c, 0, &orphan, 1, c->userdata);
        else {
                n_stopped++;
                c->done(c, 0, NULL, c->userdata);
        }
        return 0;
}

/* The fake Systemd is the event loop. */
static int call_new(Systemd *s, UnitDone done, UnitListDone list_done, void *userdata, UnitCall **ret) {
        UnitCall *c = calloc(1, sizeof(UnitCall));

        assert(c);
        *c = (UnitCall) { .done = done, .list_done = list_done, .userdata = userdata };
        ASSERT_EQ(sd_event_add_defer((sd_event *) s, &c->source, on_call, c) < 0, 0);
        *ret = c;
        return 0;
}

int systemd_list_units(Systemd *s, const char *pattern, UnitListDone done, void *userdata, UnitCall **ret) {
        ASSERT_STREQ(pattern, "wrenn-job-*.service");
        return call_new(s, NULL, done, userdata, ret);
}

int systemd_stop_unit(Systemd *s, const char *unit, UnitDone done, void *userdata, UnitCall **ret) {
        ASSERT_STREQ(unit, "wrenn-job-9.service");
        return call_new(s, done, NULL, userdata, ret);
}

UnitCall* unit_call_free(UnitCall *c) {
        if (!c)
                return NULL;
        sd_event_source_disable_unref(c->source);
        free(c);
        return NULL;
}

int trash_put(Trash *t, int dir_fd, const char *name, bool durable) {
        return remove_tree_at(dir_fd, name);
}

/* --- a daemon without the rest --------------------------------------------------------------- */

typedef struct World {
        char path[64];
        sd_event *event;
        Manager m;
        unsigned n_new, n_removed, n_templates, n_templates_gone;
        char result[16], message[256];
        double progress;
} World;

static void on_job_new(Job *j, void *userdata) {
        ((World *) userdata)->n_new++;
}

static void on_job_changed(Job *j, const char *const *properties, void *userdata) {
        World *w = userdata;

        ASSERT_TRUE(job_progress(j) >= w->progress && job_progress(j) <= 1);
        w->progress = job_progress(j);
}

static void on_job_removed(Job *j, const char *result, const char *message, void *userdata) {
        World *w = userdata;

        w->n_removed++;
        w->progress = 0;
        (void) snprintf(w->result, sizeof(w->result), "%s", result);
        (void) snprintf(w->message, sizeof(w->message), "%s", message);
}

static void on_template_new(Template *t, void *userdata) {
        ((World *) userdata)->n_templates++;
}

static void on_template_removed(Template *t, void *userdata) {
        ((World *) userdata)->n_templates_gone++;
}

static const ManagerEvents events = {
        .job_new = on_job_new,
        .job_changed = on_job_changed,
        .job_removed = on_job_removed,
        .template_new = on_template_new,
        .template_removed = on_template_removed,
};

static void put(int dir_fd, const char *name, const char *text) {
        ASSERT_EQ(write_file_atomic_at(dir_fd, name, text, strlen(text), 0644), 0);
}

static void put_kernel(World *w, const char *agent_sha256) {
        _cleanup_free_ char *text = strjoin("{\"version\":\"1\",\"agent_sha256\":\"", agent_sha256, "\"}");
        _cleanup_close_ int kernels = open_dir_at(w->m.state_fd, "kernels", true, 0755), fd = -EBADF;

        fd = open_dir_at(kernels, "1", true, 0755);
        put(fd, "kernel.json", text);
        (void) symlinkat("1", kernels, "current");
}

static void agent_sha256(char hex[static SHA256_HEX_LEN + 1]) {
        uint8_t digest[SHA256_LEN];

        ASSERT_EQ(sha256_data("agent", 5, digest), 0);
        hex_encode(digest, SHA256_LEN, hex);
}

static void run_loop(World *w) {
        for (unsigned i = 0; i < 50 && sd_event_run(w->event, 0) > 0; i++)
                ;
}

static void world_open(World *w) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *db = strjoin(w->path, "/db");

        w->m = (Manager) {
                .event = w->event,
                .systemd = (Systemd *) w->event,
                .events = &events,
                .events_userdata = w,
                .templates = hashmap_new(),
                .templates_by_id = hashmap_new(),
                .jobs = hashmap_new(),
                .state_dir = w->path,
                .lib_dir = w->path,
                .state_fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        };
        close(open_dir_at(w->m.state_fd, "templates", true, 0700));
        ASSERT_EQ(store_open(db, &w->m.store, &fault), 0);
        ASSERT_EQ(manager_load_templates(&w->m, &fault), 0);
}

static void world_close(World *w) {
        manager_free_jobs(&w->m);
        manager_free_templates(&w->m);
        hashmap_free(w->m.templates);
        hashmap_free(w->m.templates_by_id);
        hashmap_free(w->m.jobs);
        store_close(w->m.store);
        close_fd(w->m.state_fd);
}

static void world_make(World *w) {
        _cleanup_close_ int files = -EBADF;

        if (getuid() != 0)
                skip();
        *w = (World) { .path = "/tmp/templates-job-XXXXXX" };
        assert(mkdtemp(w->path));
        ASSERT_EQ(sd_event_new(&w->event) < 0, 0);
        world_open(w);
        put(w->m.state_fd, "wrenn-agent", "agent");
        files = open_dir_at(w->m.state_fd, "templates.d", true, 0755);
        put(files, "tiny.template",
            "[Template]\nAlias=small tiny-debian\n[Packages]\nPackages=git\n[Capsule]\nDefaultUser=joe\nEnvironment=A=b\nDefaultVCPUs=3\n");
        put(files, "bad.template", "[Packages]\nNonsense=git\n");
        n_stopped = 0;
}

static void world_done(World *w) {
        world_close(w);
        sd_event_unref(w->event);
        ASSERT_PTR(worker, NULL);
        ASSERT_EQ(remove_tree_at(AT_FDCWD, w->path), 0);
}

/* Entries of templates/. */
static unsigned count_directories(World *w) {
        char command[256], text[16] = "";
        FILE *f;

        (void) snprintf(command, sizeof(command), "ls -A %s/templates | wc -l", w->path);
        f = popen(command, "re");
        assert(f && fgets(text, sizeof(text), f));
        pclose(f);
        return (unsigned) atoi(text);
}

/* The worker's end: result is JSON, or NULL and the fault. */
static void worker_ends(World *w, const char *result, FaultCode code, const char *message) {
        int r;

        worker->result = result ? json_loads(result, 0, NULL) : NULL;
        r = worker->result ? 0 : fault_set(&worker->fault, code, "%s", message);
        worker->handlers->on_done(worker, r, worker->result, &worker->fault, worker->userdata);
        run_loop(w);
}

static void worker_makes_image(World *w) {
        _cleanup_close_ int fd = open(worker->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert(fd >= 0);
        put(fd, "rootfs.erofs", "image");
        put(fd, "rubbish", "x");
        worker_ends(w, "{\"digest\":\"" DIGEST "\",\"size\":5}", 0, NULL);
}

/* --- the tests ------------------------------------------------------------------------------- */

TEST(build) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL, busy = FAULT_NULL;
        Template *t, *second;
        struct stat st;
        char *path;
        World w;
        Job *j;

        world_make(&w);
        ASSERT_EQ(job_build_template(&w.m, "tiny", &j, &fault), 0);
        ASSERT_EQ(w.n_new, 1);
        ASSERT_EQ(job_build_template(&w.m, "tiny", NULL, &busy), -EBUSY);
        run_loop(&w);
        ASSERT_PTR(worker, NULL); /* not before the orphans are gone */
        ASSERT_EQ(job_state(j), JOB_WAITING);

        ASSERT_EQ(manager_start_jobs(&w.m), 0);
        run_loop(&w);
        ASSERT_EQ(n_stopped, 1);
        ASSERT_EQ(job_state(j), JOB_RUNNING);
        ASSERT_STREQ(worker->job, "prepare-kernel"); /* there is none */
        ASSERT_STREQ(worker->unit, "wrenn-job-1-kernel.service");
        worker->handlers->on_progress(worker, 0.5, "Unpacking", worker->userdata);
        ASSERT_TRUE(w.progress > 0.1 && w.progress < 0.2);
        worker->handlers->on_progress(worker, 0.4, "Back", worker->userdata);
        worker->handlers->on_progress(worker, 99, "\xff", worker->userdata);
        ASSERT_STREQ(job_step(j), "Back");
        worker_ends(&w, "{\"version\":\"1\"}", 0, NULL);

        ASSERT_STREQ(worker->job, "build-template");
        ASSERT_STREQ(worker->unit, "wrenn-job-1.service");
        ASSERT_EQ(stat(worker->directory, &st), 0);
        ASSERT_EQ(st.st_uid, JOB_UID_FIRST);
        worker_makes_image(&w);
        ASSERT_STREQ(w.result, "done");
        ASSERT_EQ(hashmap_size(w.m.jobs), 0);
        ASSERT_EQ(w.n_templates, 1);
        ASSERT_EQ(count_directories(&w), 1);

        t = manager_find_template(&w.m, "tiny", NULL);
        ASSERT_NOT_NULL(t);
        ASSERT_TRUE(t->platform);
        ASSERT_STREQ(t->default_user, "joe");
        ASSERT_STREQ(t->env[0], "A=b");
        ASSERT_EQ(t->default_vcpus, 3);
        ASSERT_EQ(t->size_bytes, 5);
        ASSERT_PTR(manager_find_template(&w.m, "tiny-debian", NULL), t);
        ASSERT_PTR(manager_find_template(&w.m, "small", "red"), t);
        ASSERT_NULL(manager_find_template(&w.m, "smaller", NULL));
        path = template_image_path(t);
        ASSERT_EQ(stat(path, &st), 0);
        ASSERT_EQ(st.st_uid, 0);
        free(path);

        /* again, while a capsule uses the old one */
        (void) template_ref(t);
        agent_sha256((char[SHA256_HEX_LEN + 1]) {});
        ASSERT_EQ(job_build_template(&w.m, "tiny", NULL, &fault), 0);
        run_loop(&w);
        worker_ends(&w, "{}", 0, NULL);
        worker_makes_image(&w);
        second = manager_find_template(&w.m, "tiny", NULL);
        ASSERT_TRUE(second && second != t && t->hidden);
        ASSERT_EQ(w.n_templates_gone, 1);
        ASSERT_EQ(count_directories(&w), 2);
        (void) template_unref(t);
        ASSERT_EQ(count_directories(&w), 1);

        /* another life */
        world_close(&w);
        world_open(&w);
        ASSERT_EQ(hashmap_size(w.m.templates_by_id), 1);
        t = manager_find_template(&w.m, "tiny", "red");
        ASSERT_NOT_NULL(t);
        ASSERT_STREQ(t->digest, DIGEST);
        ASSERT_STREQ(t->env[0], "A=b");
        ASSERT_PTR(manager_find_template(&w.m, "small", "red"), t);
        ASSERT_EQ(template_remove(t, &fault), 0);
        ASSERT_EQ(count_directories(&w), 0);
        world_done(&w);
}

TEST(failures) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL, unknown = FAULT_NULL, bad = FAULT_NULL;
        char hex[SHA256_HEX_LEN + 1];
        World w;
        Job *j;

        world_make(&w);
        agent_sha256(hex);
        put_kernel(&w, hex);
        ASSERT_TRUE(manager_kernel_is_current(&w.m));
        ASSERT_EQ(manager_start_jobs(&w.m), 0);
        run_loop(&w);
        ASSERT_EQ(w.n_new, 0);

        ASSERT_EQ(job_build_template(&w.m, "none", NULL, &unknown), -ENOENT);
        ASSERT_EQ(job_build_template(&w.m, "bad", NULL, &bad), -EINVAL);
        ASSERT_EQ(w.n_new, 0);

        /* the worker says why */
        ASSERT_EQ(job_build_template(&w.m, "tiny", NULL, &fault), 0);
        run_loop(&w);
        ASSERT_EQ(count_directories(&w), 1);
        worker_ends(&w, NULL, FAULT_NO_SPACE, "The disk is full.");
        ASSERT_STREQ(w.result, "failed");
        ASSERT_STREQ(w.message, "The disk is full.");
        ASSERT_EQ(count_directories(&w), 0);

        /* a result without an image; a link in its place */
        ASSERT_EQ(job_build_template(&w.m, "tiny", NULL, &fault), 0);
        run_loop(&w);
        worker_ends(&w, "{\"digest\":\"" DIGEST "\"}", 0, NULL);
        ASSERT_STREQ(w.result, "failed");
        ASSERT_EQ(job_build_template(&w.m, "tiny", NULL, &fault), 0);
        run_loop(&w);
        {
                _cleanup_close_ int fd = open(worker->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

                ASSERT_EQ(symlinkat("/etc/passwd", fd, "rootfs.erofs"), 0);
        }
        worker_ends(&w, "{\"digest\":\"" DIGEST "\"}", 0, NULL);
        ASSERT_STREQ(w.result, "failed");
        ASSERT_EQ(count_directories(&w), 0);
        ASSERT_EQ(hashmap_size(w.m.templates_by_id), 0);

        /* cancelled at work, and while it waits */
        ASSERT_EQ(job_build_template(&w.m, "tiny", &j, &fault), 0);
        run_loop(&w);
        job_cancel(j);
        ASSERT_TRUE(worker->cancelled);
        worker_ends(&w, NULL, FAULT_CANCELED, "The job was cancelled.");
        ASSERT_STREQ(w.result, "canceled");
        ASSERT_EQ(job_build_template(&w.m, "tiny", &j, &fault), 0);
        job_cancel(j);
        run_loop(&w);
        ASSERT_STREQ(w.result, "canceled");
        ASSERT_EQ(w.n_removed, w.n_new);
        ASSERT_EQ(count_directories(&w), 0);
        world_done(&w);
}

TEST(import) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL, name = FAULT_NULL, taken = FAULT_NULL,
                                    builtin = FAULT_NULL, dir = FAULT_NULL;
        _cleanup_close_ int fd = memfd_from("tar", "x", 1);
        char hex[SHA256_HEX_LEN + 1];
        World w;

        world_make(&w);
        agent_sha256(hex);
        put_kernel(&w, hex);
        ASSERT_EQ(manager_start_jobs(&w.m), 0);
        run_loop(&w);

        ASSERT_EQ(job_import_template(&w.m, "../x", fd, false, NULL, &name), -EINVAL);
        ASSERT_EQ(job_import_template(&w.m, "x", w.m.state_fd, false, NULL, &dir), -EINVAL);
        ASSERT_EQ(job_import_template(&w.m, "x", fd, false, NULL, &fault), 0);
        ASSERT_EQ(job_build_template(&w.m, "tiny", NULL, &fault), 0);
        run_loop(&w);
        ASSERT_STREQ(worker->job, "import-template");
        worker_makes_image(&w);
        ASSERT_STREQ(worker->job, "build-template"); /* the next in the queue */
        worker_makes_image(&w);
        ASSERT_EQ(w.n_templates, 2);

        ASSERT_EQ(job_import_template(&w.m, "x", fd, false, NULL, &taken), -EEXIST);
        ASSERT_EQ(job_import_template(&w.m, "tiny", fd, true, NULL, &builtin), -EEXIST);
        ASSERT_EQ(job_import_template(&w.m, "x", fd, true, NULL, &fault), 0);
        run_loop(&w);
        worker_makes_image(&w);
        ASSERT_STREQ(w.result, "done");
        ASSERT_EQ(hashmap_size(w.m.templates_by_id), 2);
        world_done(&w);
}

TEST(limit) {
        _cleanup_(fault_done) Fault full = FAULT_NULL;
        _cleanup_close_ int fd = memfd_from("tar", "x", 1);
        World w;

        world_make(&w);
        for (unsigned i = 0; i < JOBS_MAX; i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                char name[32];

                (void) snprintf(name, sizeof(name), "t%u", i);
                ASSERT_EQ(job_import_template(&w.m, name, fd, false, NULL, &fault), 0);
        }
        ASSERT_EQ(job_import_template(&w.m, "more", fd, false, NULL, &full), -EDQUOT);
        world_done(&w);
}

/* A new agent came with an upgrade; rubbish of an earlier life. */
TEST(start) {
        World w;

        world_make(&w);
        put_kernel(&w, DIGEST);
        {
                _cleanup_close_ int templates = open_dir_at(w.m.state_fd, "templates", false, 0);

                close(open_dir_at(templates, ".new-tm-x", true, 0755));
                close(open_dir_at(templates, "tm-unknown", true, 0755));
        }
        close(open_dir_at(w.m.state_fd, "kernels/.tmp-x", true, 0755));
        ASSERT_EQ(manager_start_jobs(&w.m), 0);
        run_loop(&w);
        ASSERT_EQ(count_directories(&w), 0);
        ASSERT_EQ(faccessat(w.m.state_fd, "kernels/.tmp-x", F_OK, 0), -1);
        ASSERT_STREQ(worker->job, "prepare-kernel");
        ASSERT_STREQ(worker->unit, "wrenn-job-1.service");
        worker_ends(&w, "{}", 0, NULL);
        ASSERT_STREQ(w.result, "done");
        world_done(&w);
}
