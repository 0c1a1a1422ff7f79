// A job's description as a value: fields are read and written by JSON pointers.

/** What stands at `pointer`, or undefined. */
export function read(job, pointer) {
  return pointer.split('/').slice(1).reduce((value, name) => (value === null || typeof value !== 'object' ? undefined : value[name]), job);
}

/** `job` with `value` at `pointer`; undefined removes what is there, and objects that are empty then. */
export function write(job, pointer, value) {
  const [, name, ...rest] = pointer.split('/');
  const copy = job !== null && typeof job === 'object' && !Array.isArray(job) ? { ...job } : {};
  const inner = rest.length ? write(copy[name], `/${rest.join('/')}`, value) : value;
  if (inner === undefined || (rest.length && Object.keys(inner).length === 0)) delete copy[name];
  else copy[name] = inner;
  return copy;
}
