-- What is known of an idempotency key, and is nobody at it just now? First the lock, held to the end of the transaction,
-- then a look with a snapshot of its own: in one statement a call that committed in between was not seen, and its
-- retry ran again, on an emptied cart.
create function banyan_recall(
  of_actor text, of_operation text, of_key text,
  out free boolean, out request_hash text, out output text, out created_at timestamptz
) language plpgsql volatile as $$
begin
  free := pg_try_advisory_xact_lock(hashtextextended(of_actor || '|' || of_operation || '|' || of_key, 7));
  select k.request_hash, k.output, k.created_at into request_hash, output, created_at
  from idempotency_key k where k.actor = of_actor and k.operation = of_operation and k.key = of_key;
end $$;
