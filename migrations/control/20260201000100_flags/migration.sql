-- The flags themselves, when no Unleash server holds them. Strategies and variants are JSON as Unleash's API has it:
-- nothing here looks into them but the code that speaks that API.
create table flag (
  name text primary key,
  enabled boolean not null,
  strategies jsonb not null,
  variants jsonb not null,
  created_at timestamptz(3) not null,
  changed_at timestamptz(3) not null
);

-- What the flags asked for when they last made sense, wherever they are kept: it holds while they do not.
create table flag_target (
  context text primary key,
  stage text,
  percent double precision,
  changed_at timestamptz(3) not null
);
