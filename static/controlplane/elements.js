/** The page's elements, by name. @param {string} id @returns {any} */
export const get = (id) => document.getElementById(id);

/** The first where there are two. @param {string} name @returns {any} */
export const button = (name) => document.querySelector(`[data-act="${name}"]`);
