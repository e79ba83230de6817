/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A template: a read-only EROFS image below STATEDIR/templates/<id>/ and what a capsule made of it gets by
 * default. The name points to the newest; a replaced or removed one is hidden at once (in no table but its
 * users') and freed, row and directory, with its last user.
 */

#include "basic/macro.h"

typedef struct Manager Manager;

typedef enum TemplateType {
        TEMPLATE_BASE,
        TEMPLATE_SNAPSHOT,
        _TEMPLATE_TYPE_MAX,
        _TEMPLATE_TYPE_INVALID = -EINVAL,
} TemplateType;

typedef struct Template {
        unsigned n_ref;   /* the table's one, and one for each capsule that uses it */
        Manager *manager; /* weak: outlives us */
        char *id;         /* random, names the directory */
        char *name;
        char **aliases; /* names it answers to as long as no template has them */
        TemplateType type;
        char *team; /* "": everybody's */
        char *digest;
        char *default_user; /* "": root */
        char **env;         /* "NAME=value" */
        bool platform;      /* built from templates.d */
        bool hidden;
        bool loaded_hidden; /* found so at start-up: holds a reference until the sweep */
        uint64_t size_bytes;
        uint64_t created_usec;
        uint32_t default_vcpus; /* 0: the configuration's, as the next */
        uint64_t default_memory_bytes;
} Template;

/* The visible template of that name, else with that alias, or NULL; borrowed. team: NULL for an
 * administrator, else only that team's and everybody's. */
Template* manager_find_template(Manager *m, const char *name, const char *team);
/* Sets FAULT_NOT_FOUND with the remedy, and returns its errno. */
int template_missing(const char *name, Fault *reterr);
/* Also a hidden one, by id: for records found at start-up. */
Template* manager_find_template_by_id(Manager *m, const char *id);
/* Path of its image, "…/rootfs.erofs"; owned by the caller; NULL on out of memory. */
char* template_image_path(const Template *t);
Template* template_ref(Template *t);
/* The last one frees it, and its row and directory when it is hidden. */
Template* template_unref(Template *t);
DEFINE_CLEANUP(Template, template_unref)

/* What a worker made, to be taken over; strings are borrowed. */
typedef struct TemplateSpec {
        const char *name;
        char *const *aliases;
        TemplateType type;
        const char *team;
        const char *digest;
        const char *default_user;
        char *const *env;
        bool platform;
        uint32_t default_vcpus;
        uint64_t default_memory_bytes;
} TemplateSpec;

/*
 * Makes the template <id> of templates/.new-<id>/rootfs.erofs, which becomes root's, and stores it durably;
 * a visible one of that name is hidden in the same commit. No process may be left that could write there.
 * *ret (may be NULL) is borrowed.
 */
int template_take_over(Manager *m, const char *id, const TemplateSpec *spec, Template **ret, Fault *reterr);
/* Hides it durably and tells the front end; freed with its last user. */
int template_remove(Template *t, Fault *reterr);
const char* template_type_to_string(TemplateType t); /* "base", "snapshot" */
TemplateType template_type_from_string(const char *s);
/* Forgets all; rows and files stay. */
void manager_free_templates(Manager *m);
/* Removes rows and directories nobody uses, and what unfinished jobs left; once capsules are loaded and jobs
 * are stopped. */
void manager_sweep_templates(Manager *m);
