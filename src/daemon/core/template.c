/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/manager.h"
#include "daemon/core/template.h"
#include "daemon/core/trash.h"
#include "shared/json-field.h"

#define IMAGE_NAME  "rootfs.erofs"
#define RECORD_NAME "template.json"

static const char *const type_names[_TEMPLATE_TYPE_MAX] = {
        [TEMPLATE_BASE] = "base",
        [TEMPLATE_SNAPSHOT] = "snapshot",
};

const char* template_type_to_string(TemplateType t) {
        assert(t >= 0 && t < _TEMPLATE_TYPE_MAX);
        return type_names[t];
}

TemplateType template_type_from_string(const char *s) {
        for (TemplateType t = 0; t < _TEMPLATE_TYPE_MAX; t++)
                if (streq_ptr(type_names[t], s))
                        return t;
        return _TEMPLATE_TYPE_INVALID;
}

static Template* template_free(Template *t) {
        if (!t)
                return NULL;

        free(t->id);
        free(t->name);
        strv_free(t->aliases);
        free(t->team);
        free(t->digest);
        free(t->default_user);
        strv_free(t->env);
        free(t);
        return NULL;
}
DEFINE_CLEANUP(Template, template_free)

/* An object of that id and description, in no table yet. */
static int template_new(Manager *m, const char *id, const TemplateSpec *spec, Template **ret) {
        _cleanup_(template_freep) Template *t = calloc(1, sizeof(Template));

        if (!t)
                return -ENOMEM;
        *t = (Template) {
                .n_ref = 1,
                .manager = m,
                .id = strdup(id),
                .name = strdup(spec->name),
                .aliases = strv_copy(spec->aliases),
                .type = spec->type,
                .team = strdup(strempty(spec->team)),
                .digest = strdup(strempty(spec->digest)),
                .default_user = strdup(strempty(spec->default_user)),
                .env = strv_copy(spec->env),
                .platform = spec->platform,
                .default_vcpus = spec->default_vcpus,
                .default_memory_bytes = spec->default_memory_bytes,
        };
        if (!t->id || !t->name || !t->team || !t->digest || !t->default_user ||
            strv_length(t->aliases) != strv_length(spec->aliases) ||
            strv_length(t->env) != strv_length(spec->env))
                return -ENOMEM;

        *ret = TAKE_PTR(t);
        return 0;
}

Template* template_ref(Template *t) {
        t->n_ref++;
        return t;
}

/* The row first: a directory without a row is rubbish that the next start removes, a row without a directory
 * would be a lie. */
static void template_erase(Template *t) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_close_ int dir_fd = -EBADF;
        Manager *m = t->manager;
        int r;

        r = store_delete_template(m->store, t->id, /* durable= */ false, &fault);
        if (r < 0)
                log_warning("Failed to forget template '%s', ignoring: %s", t->name,
                            strempty(fault.message));

        dir_fd = open_dir_at(m->state_fd, "templates", /* create= */ false, 0);
        r = dir_fd < 0 ? dir_fd : trash_put(m->trash, dir_fd, t->id, /* durable= */ false);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to remove the files of template '%s', ignoring: %m",
                                         t->name);
}

Template* template_unref(Template *t) {
        if (!t || --t->n_ref > 0)
                return NULL;

        (void) hashmap_remove(t->manager->templates_by_id, t->id);
        if (t->hidden)
                template_erase(t);
        return template_free(t);
}

static bool team_may_use(const Template *t, const char *team) {
        return !team || !*t->team || streq(t->team, team);
}

Template* manager_find_template(Manager *m, const char *name, const char *team) {
        Template *t = hashmap_get(m->templates, name);

        if (t)
                return team_may_use(t, team) ? t : NULL;
        HASHMAP_FOREACH(t, m->templates)
                if (strv_contains(t->aliases, name) && team_may_use(t, team))
                        return t;
        return NULL;
}

int template_missing(const char *name, Fault *reterr) {
        return fault_set(reterr, FAULT_NOT_FOUND,
                         "No template '%.64s'; 'wrennctl list-templates' shows those there are, 'wrennctl "
                         "build-template' makes one.",
                         name);
}

Template* manager_find_template_by_id(Manager *m, const char *id) {
        return hashmap_get(m->templates_by_id, id);
}

char* template_image_path(const Template *t) {
        return strjoin(t->manager->state_dir, "/templates/", t->id, "/" IMAGE_NAME);
}

/* --- the store ------------------------------------------------------------------------------- */

static int template_store(const Template *t, bool durable, Fault *reterr) {
        _cleanup_json_ json_t *env = json_from_env(t->env);
        _cleanup_free_ char *env_text = env ? json_dumps(env, JSON_COMPACT) : NULL,
                            *aliases = strv_join(t->aliases, " ");

        if (!env_text || !aliases)
                return fault_set_errno(reterr, -ENOMEM, "Failed to store template '%s'", t->name);
        return store_put_template(t->manager->store,
                                  &(TemplateRow) {
                                                  .id = t->id,
                                                  .name = t->name,
                                                  .type = template_type_to_string(t->type),
                                                  .team = t->team,
                                                  .digest = t->digest,
                                                  .default_user = t->default_user,
                                                  .env = env_text,
                                                  .platform = t->platform,
                                                  .hidden = t->hidden,
                                                  .size_bytes = t->size_bytes,
                                                  .created_usec = t->created_usec,
                                                  .default_vcpus = t->default_vcpus,
                                                  .default_memory_bytes = t->default_memory_bytes,
                                                  .aliases = aliases,
                                  },
                                  durable, reterr);
}

/* Both tables; of two visible ones of a name, which no commit leaves behind, the younger row wins. */
static int template_link(Template *t) {
        Manager *m = t->manager;
        int r;

        r = hashmap_put(m->templates_by_id, t->id, t);
        if (r < 0 || t->hidden)
                return r;

        r = hashmap_put(m->templates, t->name, t);
        if (r < 0)
                (void) hashmap_remove(m->templates_by_id, t->id);
        return r;
}

static char** env_from_text(const char *text) {
        _cleanup_json_ json_t *object = json_loads(text, 0, NULL);
        char **env = NULL;
        const char *name;
        json_t *value;

        json_object_foreach(object, name, value)
                if (json_is_string(value) && strv_extendf(&env, "%s=%s", name, json_string_value(value)) < 0)
                        return strv_free(env);
        return env;
}

static int on_row(const TemplateRow *row, void *userdata) {
        _cleanup_(template_freep) Template *t = NULL;
        _cleanup_strv_ char **env = env_from_text(row->env), **aliases = strv_split(row->aliases, " ");
        Manager *m = userdata;
        int r;

        if (!name_is_valid(row->id) || !name_is_valid(row->name) ||
            template_type_from_string(row->type) < 0) {
                log_warning("Template record '%s' is damaged, ignoring.", row->id);
                return 0;
        }

        r = template_new(m, row->id,
                         &(TemplateSpec) {
                                         .name = row->name,
                                         .aliases = aliases,
                                         .type = template_type_from_string(row->type),
                                         .team = row->team,
                                         .digest = row->digest,
                                         .default_user = row->default_user,
                                         .env = env,
                                         .platform = row->platform != 0,
                                         .default_vcpus = (uint32_t) row->default_vcpus,
                                         .default_memory_bytes = row->default_memory_bytes,
                         },
                         &t);
        if (r < 0)
                return r;

        t->hidden = t->loaded_hidden = row->hidden != 0;
        t->size_bytes = row->size_bytes;
        t->created_usec = row->created_usec;
        r = template_link(t);
        if (r == -EEXIST) {
                log_warning("There are two records of template '%s', ignoring one.", t->name);
                return 0;
        }
        if (r < 0)
                return r;
        (void) TAKE_PTR(t);
        return 0;
}

int manager_load_templates(Manager *m, Fault *reterr) {
        return store_load_templates(m->store, on_row, m, reterr);
}

/* --- coming and going ------------------------------------------------------------------------ */

/* Out of sight, in memory only. The reference of the tables goes at the end of the caller's work. */
static void template_hide(Template *t) {
        Manager *m = t->manager;

        (void) hashmap_remove(m->templates, t->name);
        t->hidden = true;
        manager_event(m, template_removed, t);
}

int template_remove(Template *t, Fault *reterr) {
        int r;

        t->hidden = true;
        r = template_store(t, /* durable= */ true, reterr);
        t->hidden = false;
        if (r < 0)
                return r;

        log_info("Template '%s' was removed%s.", t->name,
                 t->n_ref > 1 ? "; its files stay while capsules use them" : "");
        template_hide(t);
        (void) template_unref(t);
        return 0;
}

/* What people find beside the image; the database is what counts. */
static int write_record(int dir_fd, const Template *t) {
        _cleanup_json_ json_t *env = json_from_env(t->env), *aliases = json_from_strv(t->aliases),
                              *record = NULL;
        _cleanup_free_ char *text = NULL;

        record = json_pack("{s:s, s:s, s:O, s:s, s:s, s:s, s:s, s:O, s:b, s:I, s:I, s:I, s:I}", "id", t->id,
                           "name", t->name, "aliases", aliases, "type", template_type_to_string(t->type),
                           "team", t->team, "digest", t->digest, "default_user", t->default_user, "env", env,
                           "platform", (int) t->platform, "size", (json_int_t) t->size_bytes, "created_usec",
                           (json_int_t) t->created_usec, "default_vcpus", (json_int_t) t->default_vcpus,
                           "default_memory", (json_int_t) t->default_memory_bytes);
        text = record ? json_dumps(record, JSON_INDENT(2)) : NULL;
        return text ? write_file_atomic_at(dir_fd, RECORD_NAME, text, strlen(text), 0644) : -ENOMEM;
}

/* Moves the image, and nothing else a worker may have left, from the directory it could write to into one of
 * root's. */
static int adopt_image(int templates_fd, const char *new_name, Template *t) {
        _cleanup_close_ int from_fd = -EBADF, to_fd = -EBADF, image_fd = -EBADF;
        struct stat st;
        int r;

        /* the worker's until now, and we do without CAP_DAC_OVERRIDE */
        if (fchownat(templates_fd, new_name, 0, 0, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        from_fd = open_dir_at(templates_fd, new_name, /* create= */ false, 0);
        if (from_fd < 0)
                return from_fd;
        if (fchownat(from_fd, IMAGE_NAME, 0, 0, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        image_fd = openat(from_fd, IMAGE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (image_fd < 0 || fstat(image_fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_size <= 0)
                return -EBADMSG;
        if (fchmod(image_fd, 0644) < 0)
                return -errno;

        to_fd = open_dir_at(templates_fd, t->id, /* create= */ true, 0755);
        if (to_fd < 0)
                return to_fd;
        if (renameat(from_fd, IMAGE_NAME, to_fd, IMAGE_NAME) < 0)
                return -errno;

        t->size_bytes = (uint64_t) st.st_size;
        r = write_record(to_fd, t);
        return r < 0 ? r : fsync_dir_of(to_fd);
}

/* One commit: the new row, and the old one of that name hidden. */
static int store_both(Template *t, Template *old, Fault *reterr) {
        Store *store = t->manager->store;
        int r;

        r = store_begin(store, /* durable= */ true, reterr);
        if (r < 0)
                return r;

        r = template_store(t, true, reterr);
        if (r >= 0 && old) {
                old->hidden = true;
                r = template_store(old, true, reterr);
                old->hidden = false;
        }
        if (r < 0) {
                store_rollback(store);
                return r;
        }
        return store_commit(store, reterr);
}

static int template_adopt(Manager *m, int templates_fd, Template *t, Fault *reterr) {
        _cleanup_free_ char *new_name = strjoin(".new-", t->id);
        int r;

        if (!new_name)
                return fault_set_errno(reterr, -ENOMEM, "Failed to take template '%s' over", t->name);
        r = adopt_image(templates_fd, new_name, t);
        if (r >= 0)
                r = fsync_dir_of(templates_fd);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to take template '%s' over", t->name);

        r = trash_put(m->trash, templates_fd, new_name, /* durable= */ false);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to remove '%s', ignoring: %m", new_name);
        return store_both(t, hashmap_get(m->templates, t->name), reterr);
}

int template_take_over(Manager *m, const char *id, const TemplateSpec *spec, Template **ret, Fault *reterr) {
        _cleanup_(template_freep) Template *t = NULL;
        _cleanup_close_ int templates_fd = -EBADF;
        Template *old;
        int r;

        r = template_new(m, id, spec, &t);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to take template '%s' over", spec->name);
        t->created_usec = now_usec(CLOCK_REALTIME);

        templates_fd = open_dir_at(m->state_fd, "templates", /* create= */ false, 0);
        if (templates_fd < 0)
                return fault_set_errno(reterr, templates_fd, "Failed to take template '%s' over", t->name);
        r = template_adopt(m, templates_fd, t, reterr);
        if (r < 0) {
                (void) trash_put(m->trash, templates_fd, id, /* durable= */ false);
                return r;
        }

        old = hashmap_get(m->templates, t->name);
        if (old) {
                template_hide(old);
                (void) template_unref(old);
        }
        r = template_link(t);
        if (r < 0) /* stored: the next start shows it */
                return fault_set_errno(reterr, r, "Failed to take template '%s' over", t->name);

        manager_event(m, template_new, t);
        if (ret)
                *ret = t;
        (void) TAKE_PTR(t);
        return 0;
}

void manager_free_templates(Manager *m) {
        Template *t;

        while ((t = hashmap_first(m->templates_by_id))) {
                (void) hashmap_remove(m->templates, t->name);
                (void) hashmap_remove(m->templates_by_id, t->id);
                (void) template_free(t);
        }
}

/* A directory below templates/ that no row names, or that a job left. */
static void sweep_directories(Manager *m) {
        _cleanup_close_ int dir_fd = open_dir_at(m->state_fd, "templates", /* create= */ false, 0);
        struct dirent *de;
        DIR *d;
        int r;

        d = dir_fd < 0 ? NULL : fdopendir(fcntl(dir_fd, F_DUPFD_CLOEXEC, 3));
        if (!d)
                return;
        while ((de = readdir(d))) {
                if (streq(de->d_name, ".") || streq(de->d_name, "..") ||
                    hashmap_get(m->templates_by_id, de->d_name))
                        continue;
                log_info("Removing '%s' from the templates: nobody knows it.", de->d_name);
                r = trash_put(m->trash, dir_fd, de->d_name, /* durable= */ false);
                if (r < 0)
                        (void) log_warning_errno(r, "Failed to remove '%s', ignoring: %m", de->d_name);
        }
        closedir(d);
}

void manager_sweep_templates(Manager *m) {
        Template *t;

        /* hidden ones came with one reference from the load: it was the tables', which no longer hold them
         */
        HASHMAP_FOREACH(t, m->templates_by_id)
                if (t->hidden && t->loaded_hidden) {
                        t->loaded_hidden = false;
                        (void) template_unref(t);
                }
        sweep_directories(m);
}
